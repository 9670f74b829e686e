"""Convolutions that read few channels, and input gradients, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import Geometry
from .rectify import as_maps, as_rows, rectify, rectify_backward
from .sums import dot


def input_gradient(
    dy: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry, size: list[int]
) -> Tensor:
    """Computes the input gradient of a convolution, through a rectifier where there is a mask."""
    if mask is not None:
        (dy,) = rectify_backward([dy], mask, [dy.shape[1]])
    x = dy.new_empty(1).expand(dy.shape[0], weight.shape[1], *size)  # only its shape is read
    _, stride, padding, dilation, _ = geometry
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
    )
    return as_maps(as_rows(gradients[0]))


def finished(y: Tensor, bias: Tensor | None, dtype: torch.dtype, rectified: bool) -> list[Tensor]:
    """Makes maps of a convolution's sums [B, C, H, W], with their mask where they are rectified."""
    y = y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)
    if not rectified:
        return [as_maps(as_rows(y.to(dtype)))]
    return list(rectify([y.to(dtype)], None))


def stem_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rectified: bool
) -> list[Tensor]:
    """Runs a convolution."""
    working = torch.promote_types(x.dtype, torch.float32)
    _, stride, padding, dilation, _ = geometry
    y = torch.nn.functional.conv2d(x.to(working), weight.to(working), None, stride, padding, dilation)
    return finished(y, bias, x.dtype, rectified)


def stem_gradient(
    x: Tensor, weight: Tensor, bias: Tensor | None, maps: Tensor, geometry: Geometry
) -> list[Tensor]:
    """Computes the gradient and the value of a linear function of a rectified convolution."""
    h, mask = stem_convolution(x, weight, bias, geometry, True)
    return [input_gradient(maps, mask, weight, geometry, list(x.shape[2:])), dot(h, maps)]
