"""A convolution that reads few channels and the max pooling that follows it, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import Geometry
from ..layouts import new_maps
from .extension import compiled
from .stem import laid_out, laid_out_for_gradient


def stem_pool(
    level: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    pooling: Geometry,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """Takes the maxima of a convolution's output."""
    x = x.contiguous(memory_format=torch.channels_last)
    between = geometry.output_size(x.shape[2:])
    y = new_maps(x, weight.shape[0], pooling.output_size(between))
    place = torch.empty_like(y, dtype=torch.uint8)
    bias = None if bias is None else bias.float().contiguous()
    laid = laid_out(weight)
    compiled.stem_pool(
        level,
        (*x.shape, weight.shape[0], *between),
        *geometry.pairs,
        y.shape[2:],
        pooling.pairs,
        x.data_ptr(),
        laid.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        place.data_ptr(),
        rectified,
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return y, place


def stem_pool_backward(
    level: str,
    dy: Tensor,
    place: Tensor,
    weight: Tensor,
    geometry: Geometry,
    pooling: Geometry,
    size: list[int],
) -> Tensor:
    """Computes the input gradient of both."""
    dy, place = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (dy, place))
    dx, laid = new_maps(dy, weight.shape[1], size), laid_out_for_gradient(weight)
    compiled.stem_pool_backward(
        level,
        (*dx.shape, dy.shape[1], *geometry.output_size(size)),
        *geometry.pairs,
        dy.shape[2:],
        pooling.pairs,
        dy.data_ptr(),
        place.data_ptr(),
        laid.data_ptr(),
        dx.data_ptr(),
        dy.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return dx
