"""Networks that tests of the ONNX check share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import cnnvis_fast as cv
from support.networks import random_network

CONVOLUTIONS = ["features.0", "features.4", "features.8", "features.11", "features.14"]
WAYS = ["eager float32", "trunk float32", "program float32", "trunk bfloat16", "program bfloat16"]


def network(name: str) -> nn.Module:
    return random_network(name, torch.Generator().manual_seed(0))


def names(report: cv.OnnxReport) -> list[str]:
    return list(dict.fromkeys(row.layer for row in report.differences))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Small(nn.Module):
    """Two convolutions with a given function between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv, self.last, self.between = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.conv(x)))
