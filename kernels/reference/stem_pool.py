"""A convolution that reads few channels and the max pooling that follows it, in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from ..geometry import Geometry
from .pooling import max_pool, max_pool_backward
from .stem import input_gradient, stem_convolution


def stem_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, pooling: Geometry, rectified: bool
) -> tuple[Tensor, Tensor]:
    """Takes the maxima of a convolution's output."""
    (h,) = stem_convolution(x, weight, bias, geometry, False)
    return max_pool(h, pooling, rectified)


def stem_pool_backward(
    dy: Tensor, place: Tensor, weight: Tensor, geometry: Geometry, pooling: Geometry, size: list[int]
) -> Tensor:
    """Computes the input gradient of both."""
    dh = max_pool_backward(dy, place, pooling, geometry.output_size(size))
    return input_gradient(dh, None, weight, geometry, size)
