"""1 x 1 convolutions in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .rectify import as_maps, as_rows
from .stem import _finished


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
    """A convolution of 1 x 1, see `pointwise.pointwise`."""
    working = torch.promote_types(x.dtype, torch.float32)
    filters = weight.transpose(1, 2).flatten(2).flatten(0, 1).to(working)  # [C', C]
    return _finished(as_maps(as_rows(x).to(working) @ filters.mT), bias, x.dtype, rectified)
