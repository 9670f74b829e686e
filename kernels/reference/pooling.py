"""Max pooling in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import Geometry
from .rectify import as_maps, as_rows

NOWHERE = 255
"""The place of a maximum that passes no gradient."""


def _coordinates(place: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Returns the rows and the columns in the input that `place` points to."""
    kernel, stride, padding, dilation, _ = geometry
    taps = place.long()
    down = torch.arange(place.shape[2], device=place.device).view(-1, 1) * stride[0] - padding[0]
    right = torch.arange(place.shape[3], device=place.device) * stride[1] - padding[1]
    return down + taps // kernel[1] * dilation[0], right + taps % kernel[1] * dilation[1]


def max_pool(x: Tensor, geometry: Geometry, rectified: bool) -> tuple[Tensor, Tensor]:
    """Takes the maxima of windows, and records where in its window each lies."""
    x = x.contiguous(memory_format=torch.channels_last)
    y, index = torch.nn.functional.max_pool2d_with_indices(x, *geometry.pairs, geometry.ceil_mode)
    zero = torch.zeros(index.shape, dtype=torch.uint8, device=x.device)
    first_row, first_column = _coordinates(zero, geometry)
    rows = (index // x.shape[3] - first_row) // geometry.dilation[0]
    columns = (index % x.shape[3] - first_column) // geometry.dilation[1]
    place = (rows * geometry.kernel[1] + columns).to(torch.uint8)
    if rectified:
        place, y = place.masked_fill(y <= 0, NOWHERE), torch.relu(y)
    last = torch.channels_last
    return y.contiguous(memory_format=last), place.contiguous(memory_format=last)


def max_pool_backward(dy: Tensor, place: Tensor, geometry: Geometry, size: list[int]) -> Tensor:
    """Adds each gradient up where its maximum was."""
    somewhere = place != NOWHERE
    rows, columns = _coordinates(place.masked_fill(~somewhere, 0), geometry)
    # The coordinates of a place that is nowhere may lie in the padding: its zero goes to the first pixel.
    index = torch.where(somewhere, rows * size[1] + columns, 0).flatten(2)
    batch, channels = dy.shape[:2]
    # Sums of bfloat16 are rounded once, at the end.
    wide = torch.float64 if dy.dtype == torch.float64 else torch.float32
    dx = torch.zeros(batch, channels, size[0] * size[1], dtype=wide, device=dy.device)
    dx.scatter_add_(2, index, torch.where(somewhere, dy.to(wide), 0).flatten(2))
    return as_maps(as_rows(dx.view(batch, channels, *size)).to(dy.dtype))
