"""Loads networks by name and weights, with the preprocessing that they were trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path

from torch import nn
from torchvision import models as zoo

from ..errors import InputError, nearest
from .packaged_models import NAMES, packaged_model
from .probe import refuse_other_dimensions
from .texturenet_model import texturenet_model
from .timm_models import PREFIX, timm_model
from .torchvision_models import torchvision_model
from .weights_file import open_weights

_WEIGHTS = (".safetensors", ".pth", ".pt")


def model_names() -> list[str]:
    """Returns the names that `load_model` accepts; it also accepts `timm/` and the name of a timm model."""
    return ["texturenet", *NAMES, *zoo.list_models(module=zoo)]


def load_model(name: str, weights: str | Path | Enum | None = "DEFAULT") -> nn.Module:
    """Loads a network in eval mode; its `cnnvis_source` holds name, weights and preprocessing.

    Args:
        name: `texturenet`; `efficientnet_lite0`, an ImageNet network whose weights a package brings; any
            torchvision classification model; or `timm/` and the name of a timm model, with or without the tag
            of its weights.
        weights: "DEFAULT"; one of the model's torchvision weights or its name; a timm tag; None or "none" for
            random weights (the same at every call); or the path of a `.safetensors` or `.pth` state dict,
            which is used with the preprocessing of the model's default weights.

    Raises:
        InputError: the model or weights are unknown, or the file is missing, damaged or for another network.
    """
    of_timm = isinstance(name, str) and name.startswith(PREFIX)
    if not of_timm and (not isinstance(name, str) or name not in model_names()):
        if isinstance(name, str) and (refusal := _file_as_name(name)):
            raise InputError(refusal)
        hint = nearest(str(name), model_names()) or f": see torchvision.models, or {PREFIX} and a timm name"
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
        model, source = texturenet_model(choice, by_path)
    elif name in NAMES:
        model, source = packaged_model(name, choice, by_path)
    elif of_timm:
        model, source = timm_model(name, choice, by_path)
    else:
        model, source = torchvision_model(name, choice, by_path)
    if by_path:
        file.load_into(model, name)
        source = replace(source, weights=path.name)
    model.eval().requires_grad_(False)
    model.cnnvis_source = source  # type: ignore[assignment]
    return model


def open_model(model: nn.Module | str, weights: str | Path | Enum | None = "DEFAULT") -> nn.Module:
    """Returns a module unchanged, or loads the network of that name as `load_model` does."""
    if isinstance(model, str):
        return load_model(model, weights)
    if not isinstance(model, nn.Module):
        raise InputError(f"`model` must be a name or a torch.nn.Module, got {_kind(model)}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InputError(f"`model` is a {type(model).__name__}: pass the network in it, model.module")
    if weights not in (None, "DEFAULT"):
        raise InputError("`weights` are only for a network given by name: load them into the module yourself")
    model = getattr(model, "_orig_mod", model)  # the network that torch.compile wrapped
    refuse_other_dimensions(model)
    return model


def _file_as_name(name: str) -> str | None:
    """Returns what to do instead of passing a file's name as the network's; None if it is not a file."""
    weights = name.endswith(_WEIGHTS)
    if not weights and not os.path.isfile(name):
        return None
    advice = (
        f"name its network and pass weights={name!r} (--weights), or" if weights else "name a network, or"
    )
    return (
        f"{name!r} is a file{' of weights' if weights else ''}, not a network: {advice} pass a module of "
        "your own from Python (docs/own-model.md)"
    )


def _kind(model: object) -> str:
    """Describes what was passed instead of a module, and says what to do if that is known."""
    if isinstance(model, Mapping):
        return "a state dict: load it into its network first, and pass that"
    if isinstance(model, type):
        return f"the class {model.__name__}: pass an instance, {model.__name__}()"
    return type(model).__name__
