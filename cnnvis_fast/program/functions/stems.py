"""What steps run for convolutions that read few channels: there, back, and with what is right behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import ops


def stem_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, **geometry: list[int]) -> Tensor:
    """A convolution that reads few channels."""
    return _stem_convolution(x, weight, bias, False, **geometry)[0]


def rectified_stem_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, **geometry: list[int]
) -> list[Tensor]:
    """The same, rectified, and its mask."""
    return _stem_convolution(x, weight, bias, True, **geometry)


def _stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rectified: bool,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    return ops.stem_convolution(x, weight, bias, stride, padding, dilation, rectified)


def stem_gradient(
    x: Tensor,
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    """Gradient and value of a linear function of it, rectified."""
    return ops.stem_gradient(x, weight, bias, maps, stride, padding, dilation)


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
    """A convolution that reads few channels and the max pooling behind it, and its places."""
    return ops.stem_pool(x, weight, bias, stride, padding, dilation, windows, ceil_mode, rectified)


def stem_pool_backward(
    dy: Tensor,
    place: Tensor,
    weight: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[list[int]],
) -> Tensor:
    """The input gradient of both."""
    return ops.stem_pool_backward(dy, place, weight, stride, padding, dilation, windows, size)


def input_gradient(dy: Tensor, weight: Tensor, size: list[int], **geometry: list[int]) -> Tensor:
    """The input gradient of a convolution that reads few channels."""
    return _input_gradient(dy, None, weight, size, **geometry)


def rectified_input_gradient(
    gradients: list[Tensor], mask: Tensor, weight: Tensor, size: list[int], **geometry: list[int]
) -> Tensor:
    """The same behind a rectifier, whose value one or two read."""
    dy = gradients[0] if len(gradients) == 1 else torch.add(*gradients)
    return _input_gradient(dy, mask, weight, size, **geometry)


def _input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    return ops.input_gradient(dy, mask, weight, stride, padding, dilation, size)
