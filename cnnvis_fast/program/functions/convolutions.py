"""What a program's steps run for convolutions, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import ops
from ...kernels.geometry import Geometry, Pair
from ..steps import stand_in


def layout(weight: Tensor, shape: list[int], geometry: Geometry, groups: int) -> Tensor:
    """Lays weights out as oneDNN reads them for inputs of that shape."""
    _, stride, padding, dilation, _ = geometry
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, shape)


def packed(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int) -> Tensor:
    """Runs a convolution with weights laid out for oneDNN."""
    _, stride, padding, dilation, _ = geometry
    return torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, "none", [], ""
    )


def rectified_packed(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
) -> tuple[Tensor, Tensor]:
    """Runs the same with the rectifier applied as values are written, and returns its mask too."""
    _, stride, padding, dilation, _ = geometry
    y = torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, "relu", [], ""
    )
    return y, ops.positive(y)


def stem_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Runs a convolution that reads few channels."""
    return ops.stem_convolution(x, weight, bias, geometry)[0]


def rectified_stem_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> list[Tensor]:
    """Runs the same, rectified, and returns its mask too."""
    return ops.stem_convolution(x, weight, bias, geometry, True)


def rectified_input_gradient(
    gradients: list[Tensor], mask: Tensor, weight: Tensor, geometry: Geometry, size: list[int]
) -> Tensor:
    """Computes the input gradient of a rectified convolution whose value one or two nodes read."""
    dy = gradients[0] if len(gradients) == 1 else torch.add(*gradients)
    return ops.input_gradient(dy, mask, weight, geometry, size)


def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
    """Runs a 3 x 3 convolution by Winograd's algorithm."""
    return ops.winograd(x, weight, bias, padding)[0]


def rectified_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> list[Tensor]:
    """Runs the same, rectified, and returns its mask too."""
    return ops.winograd(x, weight, bias, padding, True)


def masked_winograd(
    gradient: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair
) -> Tensor:
    """Runs the same on what a rectifier lets through of a gradient."""
    return ops.winograd(gradient, weight, bias, padding, False, mask)[0]


def pointwise_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Runs a 1 x 1 convolution."""
    return ops.pointwise(x, weight, bias)[0]


def rectified_pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Runs the same, rectified, and returns its mask too."""
    return ops.pointwise(x, weight, bias, True)


def library_backward(
    dy: Tensor, weight: Tensor, shape: tuple[int, ...], geometry: Geometry, groups: int
) -> Tensor:
    """Computes the input gradient with the library."""
    x = stand_in(dy, shape)
    _, stride, padding, dilation, _ = geometry
    only_input = [True, False, False]
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups, only_input
    )
    return gradients[0]


def linear_backward(dy: Tensor, weight: Tensor) -> Tensor:
    """Computes the gradient of a linear layer's input."""
    return dy @ weight
