"""Networks: loaded by name and weights, with the preprocessing that they were trained with."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torchvision import models as zoo
from torchvision.transforms import InterpolationMode

from .errors import InputError, first_line, nearest
from .inputs import (
    evaluating,
    input_channels,
    input_size,
    refuse_other_channels,
    refuse_other_dimensions,
    runs,
    runs_at_many_sizes,
)
from .source import Source as Source
from .texturenet import network as texturenet
from .timm_models import PREFIX, timm_model, timm_source
from .weights_file import open_weights

_WEIGHTS = (".safetensors", ".pth", ".pt")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OTHER_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def model_names() -> list[str]:
    """Names that `load_model` takes."""
    return ["texturenet", *zoo.list_models(module=zoo)]


def load_model(name: str, weights: str | Path | Enum | None = "DEFAULT") -> nn.Module:
    """Loads a network in eval mode; its `cnnvis_source` holds name, weights and preprocessing.

    Args:
        name: `texturenet`, any classification model of torchvision, or `timm/` and the name of a model of
            timm, with or without the tag of its weights.
        weights: "DEFAULT", one of the model's torchvision weights, its name or a tag of timm's, None or
            "none" for random ones (the same at every call), or the path of a `.safetensors` or `.pth` state
            dict. A path takes the preprocessing of the model's default weights.

    Raises:
        InputError: unknown model or weights; a file that is missing, damaged or of another network.
    """
    of_timm = isinstance(name, str) and name.startswith(PREFIX)
    if not of_timm and (not isinstance(name, str) or name not in model_names()):
        if isinstance(name, str) and (refusal := _of_a_file(name)):
            raise InputError(refusal)
        hint = nearest(str(name), model_names()) or f": see torchvision.models, or {PREFIX} and timm's name"
        raise InputError(f"unknown model {name!r}{hint}")
    choice = "none" if weights is None else str(weights.name if isinstance(weights, Enum) else weights)
    if choice.lower() in ("none", "default"):
        choice = choice.lower()
    path = Path(choice)
    a_word = choice in ("none", "default")
    by_path = not a_word and (path.suffix in _WEIGHTS or os.path.exists(path))
    if by_path:
        file = open_weights(path)
    if name == "texturenet":
        model, source = _texturenet(choice, by_path)
    elif of_timm:
        model, source = timm_model(name, choice, by_path)
    else:
        model, source = _torchvision(name, choice, by_path)
    if by_path:
        file.load_into(model, name)
        source = replace(source, weights=path.name)
    model.eval().requires_grad_(False)
    model.cnnvis_source = source  # type: ignore[assignment]
    return model


def open_model(model: nn.Module | str, weights: str | Path | Enum | None = "DEFAULT") -> nn.Module:
    """A module as it is, or the network of a name, see `load_model`."""
    if isinstance(model, str):
        return load_model(model, weights)
    if not isinstance(model, nn.Module):
        raise InputError(f"`model` must be a name or a torch.nn.Module, got {_told_kind(model)}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(f"`model` is a {type(model).__name__}: pass the network in it, model.module")
    if weights not in (None, "DEFAULT"):
        raise InputError("`weights` are for a network given by name: load them into the module yourself")
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    refuse_other_dimensions(model)
    return model


def _of_a_file(name: str) -> str | None:
    """What to do instead where a file's name stands for a network's; None where it is no file's."""
    weights = name.endswith(_WEIGHTS)
    if not weights and not os.path.isfile(name):
        return None
    advice = (
        f"name its network and pass weights={name!r} (--weights), or" if weights else "name a network, or"
    )
    return (
        f"{name!r} is a file{' of weights' if weights else ''}, no network: {advice} pass a module of your "
        "own from Python (docs/own-model.md)"
    )


def _told_kind(model: object) -> str:
    """What was passed in place of a module, and what to do where that is known."""
    if isinstance(model, Mapping):
        return "a state dict: load it into its network first, and pass that"
    if isinstance(model, type):
        return f"the class {model.__name__}: pass an instance, {model.__name__}()"
    return type(model).__name__


def describe(
    model: nn.Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
) -> Source:
    """The source of any module; `mean` and `std` override what is known of it.

    Args:
        model: any network.
        mean: per channel. What is neither given nor known is assumed, which is told in a warning.
        std: per channel.
        size: side in pixels that will be asked for; None to find out the network's usual one. Where neither
            source nor network tell it, what is assumed is told in a warning.

    Raises:
        InputError: mean and std do not fit each other, or the network.
    """
    if (mean is None) != (std is None):
        raise InputError("`mean` and `std` go together: pass both or neither")
    known = known_source(model)
    if mean is not None and std is not None:
        mean, std = _checked_preprocessing(mean, std)
        refuse_other_channels(model, len(mean))
    elif known:
        mean, std = known.mean, known.std
    elif (channels := input_channels(model)) == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        warnings.warn("no preprocessing given: assuming ImageNet's; pass mean= and std=", stacklevel=3)
    else:
        mean, std = (0.0,) * channels, (1.0,) * channels
        warnings.warn("no preprocessing given: assuming values in [0, 1]; pass mean= and std=", stacklevel=3)
    if any(module.training and isinstance(module, _OTHER_IN_TRAINING) for module in model.modules()):
        warnings.warn(
            f"{type(model).__name__} is in train mode: what is made is made with a copy in eval mode",
            stacklevel=3,
        )
    if known:
        return replace(known, mean=mean, std=std)
    if size is None:
        size = input_size(model, len(mean))
        if runs_at_many_sizes(model, len(mean), size):
            warnings.warn(
                f"no size given: taking {size} px; pass size= the size of your training pictures",
                stacklevel=3,
            )
    return Source(type(model).__name__, "given", mean, std, size)


def known_source(model: nn.Module) -> Source | None:
    """What `load_model` or timm's own configuration tells of a network; None where neither does."""
    known: Source | None = getattr(model, "cnnvis_source", None)
    if known is None:
        known = timm_source(model, type(model).__name__)
        if known and not (
            len(known.mean) == input_channels(model) and runs(model, len(known.mean), known.size)
        ):
            known = None  # made for other pictures than its configuration tells
    return known


def _checked_preprocessing(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = tuple(map(float, mean)), tuple(map(float, std))
    except (TypeError, ValueError) as error:
        raise InputError(f"`mean` and `std` must be lists of numbers, got {mean!r}, {std!r}") from error
    finite = all(map(math.isfinite, (*mean, *std)))
    if not mean or len(std) != len(mean) or not finite or min(std) <= 0:
        raise InputError(
            f"`mean` and `std` must have one value per channel each, std above 0, got {mean}, {std}"
        )
    return mean, std


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def structure_digest(model: nn.Module) -> str:
    """SHA-256 over the modules as printed and, where it can be traced, the code that runs them."""
    text = repr(model)
    with contextlib.suppress(Exception), evaluating(model):  # any exception: tracing runs the user's code
        text += fx.symbolic_trace(model).code
    return hashlib.sha256(text.encode()).hexdigest()


def _texturenet(choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = texturenet.TextureNet()
    if choice == "default":
        with as_file(files("cnnvis_fast.texturenet") / "texturenet.safetensors") as path:
            model.load_state_dict(load_file(path))
    elif choice != "none" and not by_path:
        raise InputError(f"unknown weights {choice!r} of texturenet: expected default, none or a file's path")
    return model, Source("texturenet", choice, texturenet.MEAN, texturenet.STD, texturenet.SIZE)


class _Undrawn(TorchFunctionMode):
    """Parameters keep what memory holds: a file's weights take their place, and drawing VGG16's takes 1 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = kwargs.get("tensor", args[0] if args else None)
        draws = func in _DRAWS or getattr(func, "__module__", "") == nn.init.__name__
        return drawn if draws and isinstance(drawn, nn.Parameter) else func(*args, **kwargs)


_DRAWS = (Tensor.uniform_, Tensor.normal_)


def _torchvision(name: str, choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    known = zoo.get_model_weights(name)
    selected = None
    if choice == "default":
        selected = known.DEFAULT
    elif choice in known.__members__:
        selected = known[choice]
    elif choice != "none" and not by_path:
        valid = ["default", "none", *known.__members__]
        raise InputError(
            f"unknown weights {choice!r} of {name}: expected {', '.join(valid)} or a file's path"
        )
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3") and selected is None:
        # What the trained weights need, and no minutes of truncated-normal initialization.
        options = {"transform_input": True, "aux_logits": False, "init_weights": False}
    try:
        with torch.random.fork_rng(devices=[]), _Undrawn() if by_path else contextlib.nullcontext():
            torch.manual_seed(0)
            model = zoo.get_model(name, weights=selected, **options)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"the weights {choice} of {name} could not be downloaded whole ({first_line(error)}): connect "
            "to the network, or pass a file's path or none as weights"
        ) from error
    transforms = (selected or known.DEFAULT).transforms()
    size = int(transforms.crop_size[0])
    label = selected.name if selected else "none"
    source = Source(
        *(name, label, tuple(transforms.mean), tuple(transforms.std), size),
        resize=int(transforms.resize_size[0]),
        bicubic=transforms.interpolation == InterpolationMode.BICUBIC,
    )
    return model, source
