"""Max pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import Geometry
from ..layouts import new_maps
from .extension import compiled


def max_pool(level: str, x: Tensor, geometry: Geometry, rectified: bool) -> tuple[Tensor, Tensor]:
    """Takes the maxima of windows, and records where in its window each lies."""
    x = x.contiguous(memory_format=torch.channels_last)
    y = new_maps(x, x.shape[1], geometry.output_size(x.shape[2:]))
    place = torch.empty_like(y, dtype=torch.uint8)
    compiled.max_pool(
        level,
        (*x.shape, *y.shape[2:]),
        *geometry.pairs,
        x.data_ptr(),
        y.data_ptr(),
        place.data_ptr(),
        rectified,
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return y, place


def max_pool_backward(level: str, dy: Tensor, place: Tensor, geometry: Geometry, size: list[int]) -> Tensor:
    """Adds each gradient up where its maximum was."""
    dy = dy.contiguous(memory_format=torch.channels_last)
    place = place.contiguous(memory_format=torch.channels_last)
    dx = new_maps(dy, dy.shape[1], size)
    compiled.max_pool_backward(
        level,
        (*dx.shape, *dy.shape[2:]),
        *geometry.pairs,
        dy.data_ptr(),
        dx.data_ptr(),
        place.data_ptr(),
        dy.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return dx
