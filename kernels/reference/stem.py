"""Convolutions and their input gradients in plain PyTorch: what every other implementation is held to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import convolved_size
from .pooling import max_pool, max_pool_backward
from .rectify import as_maps, as_rows, rectify, rectify_backward
from .sums import dot


def input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The input gradient of a convolution, see `convolutions.input_gradient`."""
    if mask is not None:
        (dy,) = rectify_backward([dy], mask, [dy.shape[1]])
    x = dy.new_empty(1).expand(dy.shape[0], weight.shape[1], *size)  # only its shape is read
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
    )
    return as_maps(as_rows(gradients[0]))


def _finished(y: Tensor, bias: Tensor | None, dtype: torch.dtype, rectified: bool) -> list[Tensor]:
    """What a convolution does with its sums [B, C, H, W]: maps, and their mask where they are rectified."""
    y = y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)
    if not rectified:
        return [as_maps(as_rows(y.to(dtype)))]
    return list(rectify([y.to(dtype)], None))


def stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    rectified: bool,
) -> list[Tensor]:
    """A convolution, see `convolutions.stem_convolution`."""
    working = torch.promote_types(x.dtype, torch.float32)
    y = torch.nn.functional.conv2d(x.to(working), weight.to(working), None, stride, padding, dilation)
    return _finished(y, bias, x.dtype, rectified)


def stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    """A linear function of a rectified convolution, see `convolutions.stem_gradient`."""
    h, mask = stem_convolution(x, weight, bias, stride, padding, dilation, True)
    dx = input_gradient(maps, mask, weight, stride, padding, dilation, list(x.shape[2:]))
    return [dx, dot(h, maps)]


def stem_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[list[int]],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """Max pooling behind a convolution, see `stem_pools.stem_pool`."""
    (h,) = stem_convolution(x, weight, bias, stride, padding, dilation, False)
    kernel, steps, room, distance = windows
    return max_pool(h, kernel, steps, room, distance, ceil_mode, rectified)


def stem_pool_backward(
    dy: Tensor,
    place: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[list[int]],
    size: list[int],
) -> Tensor:
    """Its input gradient, see `stem_pools.stem_pool_backward`."""
    between = convolved_size(size, weight, stride, padding, dilation)
    kernel, steps, room, distance = windows
    dh = max_pool_backward(dy, place, kernel, steps, room, distance, between)
    return input_gradient(dh, None, weight, stride, padding, dilation, size)
