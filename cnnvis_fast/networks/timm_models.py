"""Loads timm models by name, with the preprocessing from their own configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..errors import InputError, first_line, nearest
from .preprocessing import Source, timm_source

PREFIX = "timm/"


def timm_model(name: str, choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    """Makes a timm model.

    Args:
        name: "timm/" and timm's name with or without the tag of its weights: timm/resnet18,
            timm/resnet18.a1_in1k.
        choice: "default", "none", or a timm tag.
        by_path: whether `choice` is the path of a file that the caller loads.

    Raises:
        InputError: timm is not installed, has no such model or weights, or cannot download the weights.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{name} needs the package timm, which is not installed: pip install 'cnnvis_fast[timm]'"
        ) from error
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    known = timm.list_models()
    if architecture not in known:
        started = [other for other in known if architecture and other.startswith(architecture)]
        hint = nearest(architecture, started or known) or ": see timm.list_models()"
        raise InputError(f"timm has no model {architecture!r}{hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if not (by_path or choice in ("default", "none")):
        tag = choice
    if tag and tag not in tags:
        raise InputError(
            f"unknown weights {tag!r} of {PREFIX}{architecture}: expected "
            f"{', '.join(['default', 'none', *tags])} or a file's path"
        )
    trained = choice != "none" and not by_path
    if trained and not tags:
        raise InputError(f"timm has no trained weights for {name}: pass a file's path or none as weights")
    full = f"{architecture}.{tag}" if tag else architecture
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = timm.create_model(full, pretrained=trained)
    except Exception as error:  # any exception: hubs and files fail in many ways
        raise InputError(
            f"the weights {choice} of {name} could not be downloaded completely ({first_line(error)}): "
            "connect to the network, or pass a file's path or none as weights"
        ) from error
    source = timm_source(model, f"{PREFIX}{architecture}")
    if source is None:
        raise InputError(
            f"timm does not give the preprocessing of {name}: make the model yourself and pass mean= and std="
        )
    return model, replace(source, weights=(tag or _default_tag(model)) if trained else "none")


def _default_tag(model: nn.Module) -> str:
    config: Any = model.pretrained_cfg
    return str(config.get("tag") or "default")
