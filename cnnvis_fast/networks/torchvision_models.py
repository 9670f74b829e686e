"""Loads torchvision's classification models."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models as zoo
from torchvision.transforms import InterpolationMode

from ..errors import InputError, first_line
from .preprocessing import Source


class _Undrawn(TorchFunctionMode):
    """Leaves parameters uninitialized: a file's weights replace them, and drawing VGG16's takes 1 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = kwargs.get("tensor", args[0] if args else None)
        draws = func in _DRAWS or getattr(func, "__module__", "") == nn.init.__name__
        return drawn if draws and isinstance(drawn, nn.Parameter) else func(*args, **kwargs)


_DRAWS = (Tensor.uniform_, Tensor.normal_)


def torchvision_model(name: str, choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    """Makes a torchvision classification model.

    Args:
        name: torchvision's name of the model.
        choice: "default", "none", or torchvision's name of the weights.
        by_path: whether `choice` is the path of a file that the caller loads.

    Raises:
        InputError: there are no such weights, or they cannot be downloaded.
    """
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
        # The trained weights need this; it also avoids minutes of truncated-normal initialization.
        options = {"transform_input": True, "aux_logits": False, "init_weights": False}
    try:
        with torch.random.fork_rng(devices=[]), _Undrawn() if by_path else contextlib.nullcontext():
            torch.manual_seed(0)
            model = zoo.get_model(name, weights=selected, **options)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"the weights {choice} of {name} could not be downloaded completely ({first_line(error)}): "
            "connect to the network, or pass a file's path or none as weights"
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
