"""Loads the embedded network, `texturenet`."""

from __future__ import annotations

from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from torch import nn

from ..errors import InputError
from ..texturenet import network as texturenet
from .preprocessing import Source


def texturenet_model(choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    """Makes the embedded network.

    Args:
        choice: "default" for its trained weights, or "none" for random ones.
        by_path: whether `choice` is the path of a file that the caller loads.

    Raises:
        InputError: there are no such weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = texturenet.TextureNet()
    if choice == "default":
        with as_file(files("cnnvis_fast.texturenet") / "texturenet.safetensors") as path:
            model.load_state_dict(load_file(path))
    elif choice != "none" and not by_path:
        raise InputError(f"unknown weights {choice!r} of texturenet: expected default, none or a file's path")
    return model, Source("texturenet", choice, texturenet.MEAN, texturenet.STD, texturenet.SIZE)
