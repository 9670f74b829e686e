"""Networks: loaded by name and weights, with the preprocessing that they were trained with."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import fx, nn
from torchvision import models as zoo
from torchvision.transforms import InterpolationMode

from .errors import InputError, first_line, nearest
from .texturenet import network as texturenet
from .weights_file import open_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Source:
    """Where a network came from and what it reads.

    Attributes:
        name: of the network, or the class of a module that was handed over.
        weights: the weights' name or file name; "none" for random ones, "given" for a module's own.
        mean: per channel, of pictures in [0, 1].
        std: per channel.
        size: side in pixels of the network's usual input.
        resize: shorter side in pixels of a photo before its centre is cropped; None for `size`.
        bicubic: whether photos are resized by bicubic interpolation, else bilinear.
    """

    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int | None = None
    bicubic: bool = False


def model_names() -> list[str]:
    """Names that `load_model` takes."""
    return ["texturenet", *zoo.list_models(module=zoo)]


def load_model(name: str, weights: str | Path | Enum | None = "DEFAULT") -> nn.Module:
    """Loads a network in eval mode; its `cnnvis_source` holds name, weights and preprocessing.

    Args:
        name: `texturenet` or any classification model of torchvision.
        weights: "DEFAULT", one of the model's torchvision weights or its name, None or "none" for random
            ones (the same at every call), or the path of a `.safetensors` or `.pth` state dict. A path takes
            the preprocessing of the model's default weights.

    Raises:
        InputError: unknown model or weights; a file that is missing, damaged or of another network.
    """
    if not isinstance(name, str) or name not in model_names():
        raise InputError(
            f"unknown model {name!r}{nearest(str(name), model_names()) or ': see torchvision.models'}"
        )
    choice = "none" if weights is None else str(weights.name if isinstance(weights, Enum) else weights)
    if choice.lower() in ("none", "default"):
        choice = choice.lower()
    path = Path(choice)
    a_word = choice in ("none", "default")
    by_path = not a_word and (path.suffix in (".safetensors", ".pth", ".pt") or os.path.exists(path))
    if by_path:
        file = open_weights(path)
    if name == "texturenet":
        model, source = _texturenet(choice, by_path)
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
        raise InputError(f"`model` must be a name or a torch.nn.Module, got {type(model).__name__}")
    if weights not in (None, "DEFAULT"):
        raise InputError("`weights` are for a network given by name: load them into the module yourself")
    return getattr(model, "_orig_mod", model)  # what torch.compile wrapped


def describe(
    model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Source:
    """The source of any module; `mean` and `std` override what is known of it.

    Raises:
        InputError: mean and std do not fit each other.
    """
    if (mean is None) != (std is None):
        raise InputError("`mean` and `std` go together: pass both or neither")
    known: Source | None = getattr(model, "cnnvis_source", None)
    if mean is not None and std is not None:
        try:
            mean, std = tuple(map(float, mean)), tuple(map(float, std))
        except (TypeError, ValueError) as error:
            raise InputError(f"`mean` and `std` must be lists of numbers, got {mean!r}, {std!r}") from error
        finite = all(map(math.isfinite, (*mean, *std)))
        if not mean or len(std) != len(mean) or not finite or min(std) <= 0:
            raise InputError(
                f"`mean` and `std` must have one value per channel each, std above 0, got {mean}, {std}"
            )
    elif known:
        mean, std = known.mean, known.std
    elif (channels := input_channels(model)) == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        warnings.warn("no preprocessing given: assuming ImageNet's; pass mean= and std=", stacklevel=3)
    else:
        mean, std = (0.0,) * channels, (1.0,) * channels
        warnings.warn("no preprocessing given: assuming values in [0, 1]; pass mean= and std=", stacklevel=3)
    if known:
        return replace(known, mean=mean, std=std)
    return Source(type(model).__name__, "given", mean, std, _DEFAULT_SIZE)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Runs a network without gradients in eval mode; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class _FirstConvolution(Exception):
    """Stops a forward pass at the first convolution that runs."""


def input_channels(model: nn.Module) -> int:
    """Channels that the network reads: those of the convolution that runs first; 3 where there is none."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    first = [module.in_channels for module in convolutions[:1]]

    def stop(module: nn.Conv2d, _inputs: object) -> None:
        first.insert(0, module.in_channels)
        raise _FirstConvolution

    handles = [module.register_forward_pre_hook(stop) for module in convolutions]
    try:
        # What runs before rarely minds the number of channels; where it does, the first one defined counts.
        with contextlib.suppress(Exception), evaluating(model):
            model(torch.zeros(1, 3, 64, 64))
    finally:
        for handle in handles:
            handle.remove()
    return first[0] if first else 3


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
        with torch.random.fork_rng(devices=[]):
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
