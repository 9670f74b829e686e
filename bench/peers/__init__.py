"""Pictures by other tools, of the same units and weights, to measure against.

Each module has `VERSION` (the one that its shims were written for), `NAMES` and
`picture(name, network, layer, channel)`; importing it raises ImportError where the tool is not installed.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import nn


def upto(network: nn.Module, layer: str) -> nn.Module:
    """A copy of a network of `features`, without what runs after the block that holds the layer.

    Neither a picture nor its gradient depends on what is left out. In-place ReLUs become plain ones: they
    overwrite what a hook on the convolution before them has read.
    """
    block = int(layer.split(".")[1])
    cut = nn.Sequential(OrderedDict(features=copy.deepcopy(network.get_submodule("features"))[: block + 1]))
    for module in cut.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for parameter in cut.parameters():
        parameter.requires_grad_(False)
    return cut.eval().to(memory_format=torch.channels_last)


def seed_all(layer: str, channel: int) -> None:
    """Seeds torch's and numpy's global generators, from which these tools draw, for one unit."""
    import zlib

    import numpy as np

    number = zlib.crc32(f"{layer}/{channel}".encode())
    torch.manual_seed(number)
    np.random.seed(number)
