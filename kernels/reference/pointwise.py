"""1 x 1 convolutions in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .rectify import as_maps, as_rows
from .stem import finished


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
    """Runs a 1 x 1 convolution as a product of matrices."""
    working = torch.promote_types(x.dtype, torch.float32)
    filters = weight.transpose(1, 2).flatten(2).flatten(0, 1).to(working)  # [C', C]
    return finished(as_maps(as_rows(x).to(working) @ filters.mT), bias, x.dtype, rectified)
