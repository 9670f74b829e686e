"""Other tools' pictures of the same units and weights, for comparison.

Each module has `VERSION` (the one that its shims were written for), `NAMES` and
`picture(name, network, layer, channel)`; importing it raises ImportError if the tool is not installed.
`stepper(network, layer, channels)` returns a function that takes one step of the tool's loop per call, on a
network from `upto` or `whole` that it may hook; `original` has only this function.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import nn


def whole(network: nn.Module) -> nn.Module:
    """Returns a copy of the whole network, not frozen, as these tools' own examples pass it.

    In-place ReLUs become plain ones: they would overwrite what a hook on the convolution before them has
    read.
    """
    found = copy.deepcopy(network).eval()
    for module in found.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return found.requires_grad_(True)


def upto(network: nn.Module, layer: str) -> nn.Module:
    """Returns a frozen copy of a network of `features` that ends with the block that holds the layer.

    Neither a picture nor its gradient depends on what is left out, so this is the most that a user can do for
    these tools' speed.
    """
    block = int(layer.split(".")[1])
    features = network.get_submodule("features")[: block + 1]
    cut = whole(nn.Sequential(OrderedDict(features=features))).requires_grad_(False)
    return cut.to(memory_format=torch.channels_last)


def seed_all(layer: str, channel: int) -> None:
    """Seeds the global generators of torch and numpy, which these tools use, for one unit."""
    import zlib

    import numpy as np

    number = zlib.crc32(f"{layer}/{channel}".encode())
    torch.manual_seed(number)
    np.random.seed(number)
