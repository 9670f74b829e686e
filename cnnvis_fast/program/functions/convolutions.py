"""What a program's steps run for convolutions, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...kernels import ops
from ..steps import stand_in


def layout(
    weight: Tensor, shape: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Weights as oneDNN wants them for inputs of that shape."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, shape)


def packed(x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
    """A convolution with weights laid out for oneDNN."""
    return _packed(x, weight, bias, "none", **options)


def rectified_packed(x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    """The same, the rectifier applied as values are written, and its mask."""
    y = _packed(x, weight, bias, "relu", **options)
    return y, ops.positive(y)


def _packed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kind: str,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, kind, [], ""
    )


def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """A convolution of 3 x 3 by Winograd's algorithm."""
    return ops.winograd(x, weight, bias, padding)[0]


def rectified_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> list[Tensor]:
    """The same, rectified, and its mask."""
    return ops.winograd(x, weight, bias, padding, True)


def pointwise_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 1 x 1."""
    return ops.pointwise(x, weight, bias)[0]


def rectified_pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """The same, rectified, and its mask."""
    return ops.pointwise(x, weight, bias, True)


def library_backward(
    dy: Tensor,
    weight: Tensor,
    shape: tuple[int, ...],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """The input gradient as the library has it."""
    gradients = torch.ops.aten.convolution_backward(
        dy,
        stand_in(dy, shape),
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [True, False, False],
    )
    return gradients[0]
