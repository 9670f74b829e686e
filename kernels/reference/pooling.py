"""Max pooling in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .rectify import as_maps, as_rows

NOWHERE = 255
"""The place of a maximum that passes no gradient."""


def _coordinates(
    place: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Tensor, Tensor]:
    """Rows and columns in the input that `place` points to."""
    taps = place.long()
    down = torch.arange(place.shape[2], device=place.device).view(-1, 1) * stride[0] - padding[0]
    right = torch.arange(place.shape[3], device=place.device) * stride[1] - padding[1]
    return down + taps // kernel[1] * dilation[0], right + taps % kernel[1] * dilation[1]


def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """Maxima and where in its window each lies, see `network.max_pool`."""
    x = x.contiguous(memory_format=torch.channels_last)
    y, index = torch.nn.functional.max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
    zero = torch.zeros(index.shape, dtype=torch.uint8, device=x.device)
    first_row, first_column = _coordinates(zero, kernel, stride, padding, dilation)
    rows = (index // x.shape[3] - first_row) // dilation[0]
    place = (rows * kernel[1] + (index % x.shape[3] - first_column) // dilation[1]).to(torch.uint8)
    if rectified:
        place, y = place.masked_fill(y <= 0, NOWHERE), torch.relu(y)
    last = torch.channels_last
    return y.contiguous(memory_format=last), place.contiguous(memory_format=last)


def max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """Each gradient goes to where its maximum was, see `network.max_pool_backward`."""
    somewhere = place != NOWHERE
    rows, columns = _coordinates(place.masked_fill(~somewhere, 0), kernel, stride, padding, dilation)
    # A place that is nowhere may lie in the padding: its zero goes to the first pixel.
    index = torch.where(somewhere, rows * size[1] + columns, 0).flatten(2)
    batch, channels = dy.shape[:2]
    wide = (
        torch.float64 if dy.dtype == torch.float64 else torch.float32
    )  # of bfloat16: rounded once, at the end
    dx = torch.zeros(batch, channels, size[0] * size[1], dtype=wide, device=dy.device)
    dx.scatter_add_(2, index, torch.where(somewhere, dy.to(wide), 0).flatten(2))
    return as_maps(as_rows(dx.view(batch, channels, *size)).to(dy.dtype))
