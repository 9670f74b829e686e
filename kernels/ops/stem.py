"""Convolutions that read few channels, which libraries run slowly, and their input gradients.

Maps [B, C, H, W] are channels last. Where a rectifier follows a convolution, its mask is laid out as that of
`rectify`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import Geometry, Pair
from ..layouts import PANEL, maps_and_mask, new_maps
from .registration import Op, check_bias, check_floats, check_mask, check_size, must

FEW_CHANNELS = 4
"""The most channels that a convolution of these ops may read."""
WIDEST_FILTER = 32
"""The most columns that its filters may have."""


def geometry_of(weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> Geometry:
    """Returns the geometry of a convolution; raises where a part of it does not fit these ops."""
    must(weight.ndim == 4, "weight", "be [C', C, height, width]", tuple(weight.shape))
    _, channels, rows, columns = weight.shape
    must(channels <= FEW_CHANNELS, "weight", f"read up to {FEW_CHANNELS} channels", channels)
    must(columns <= WIDEST_FILTER, "weight", f"have at most {WIDEST_FILTER} columns", columns)
    for name, pair, least in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
        must(len(pair) == 2 and min(pair) >= least, name, f"be two whole numbers from {least} on", pair)
    return Geometry((rows, columns), stride, padding, dilation)


def steps_of(geometry: Geometry, weight: Tensor) -> tuple[Pair, Pair, Pair]:
    """Returns stride, padding and dilation; raises where the kernel is not that of the filters."""
    kernel, stride, padding, dilation, _ = geometry
    must(tuple(weight.shape[2:]) == tuple(kernel), "weight", f"have filters of {kernel}", tuple(weight.shape))
    return stride, padding, dilation


def _check_input_gradient(
    dy: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry, size: list[int]
) -> None:
    must(dy.ndim == 4, "dy", "be [B, C', H', W']", tuple(dy.shape))
    check_floats("dy", dy)
    if mask is not None:
        check_mask(mask, (dy.shape[0], *dy.shape[2:], -(-dy.shape[1] // 8)))
    check_floats("weight", dy, weight)
    must(weight.shape[0] == dy.shape[1], "weight", f"write {dy.shape[1]} channels", tuple(weight.shape))
    check_size(size)
    must(list(dy.shape[2:]) == geometry.output_size(size), "size", "be what dy's size comes from", size)


@Op
def _input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    geometry = geometry_of(weight, stride, padding, dilation)
    _check_input_gradient(dy, mask, weight, geometry, size)
    return network_kernels_for(dy).input_gradient(dy, mask, weight, geometry, size)


@_input_gradient.fake
def _(dy, mask, weight, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    _check_input_gradient(dy, mask, weight, geometry_of(weight, stride, padding, dilation), size)
    return new_maps(dy, weight.shape[1], size)


def input_gradient(
    dy: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry, size: list[int]
) -> Tensor:
    """Computes the input gradient of a convolution that reads few channels, as a network's first does.

    dx[b, c, y, x] = sum of dy[b, o, i, j] weight[o, c, k, m] over y = s i - p + d k, x = s j - p + d m

    Args:
        dy: gradient with respect to the convolution's output, any float dtype [B, C', H', W'].
        mask: of a rectifier that follows the convolution, with dy the gradient of its output; or None.
        weight: filters of the convolution, one group [C', C, height, width]; up to 4 channels C, up to 32
            columns.
        geometry: windows of the convolution: stride s, padding p with zeros, dilation d.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; sums are float32 at least and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _input_gradient(dy, mask, weight, *steps_of(geometry, weight), size)
    return result


def check_stem(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> list[int]:
    """Returns the output's height and width; raises where an argument of `stem_convolution` does not fit."""
    must(x.ndim == 4, "x", "be [B, C, H, W]", tuple(x.shape))
    check_floats("x", x)
    check_floats("weight", x, weight)
    must(weight.shape[1] == x.shape[1], "weight", f"read {x.shape[1]} channels", tuple(weight.shape))
    must(weight.shape[0] % PANEL == 0, "weight", f"write a multiple of {PANEL} channels", tuple(weight.shape))
    must(geometry.dilation[1] == 1, "dilation", "leave columns side by side", geometry.dilation)
    check_bias(bias, weight.shape[0])
    size = geometry.output_size(x.shape[2:])
    must(min(size) > 0, "x", "hold a filter", tuple(x.shape))
    return size


@Op
def _stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    rectified: bool,
) -> list[Tensor]:
    geometry = geometry_of(weight, stride, padding, dilation)
    check_stem(x, weight, bias, geometry)
    return network_kernels_for(x).stem_convolution(x, weight, bias, geometry, rectified)


@_stem_convolution.fake
def _(x, weight, bias, stride, padding, dilation, rectified):  # type: ignore[no-untyped-def]
    size = check_stem(x, weight, bias, geometry_of(weight, stride, padding, dilation))
    return maps_and_mask(x, weight.shape[0], size, rectified)


def stem_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rectified: bool = False
) -> list[Tensor]:
    """Runs a convolution that reads few channels, as a network's first does.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        geometry: windows of the convolution; padding with zeros, dilation 1 from column to column.
        rectified: whether to return relu(y) in place of y.

    Returns:
        y [B, C', H', W'], and where it is rectified, its mask; sums are float32 at least and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _stem_convolution(x, weight, bias, *steps_of(geometry, weight), rectified)
    return result


def _check_stem_gradient(
    x: Tensor, weight: Tensor, bias: Tensor | None, maps: Tensor, geometry: Geometry
) -> None:
    size = check_stem(x, weight, bias, geometry)
    must(maps.shape == (len(x), len(weight), *size), "maps", "be like the output", tuple(maps.shape))
    check_floats("maps", x, maps)
    padding, reach = geometry.padding, geometry.dilation[0] * (geometry.kernel[0] - 1)
    must(padding[0] <= reach, "padding", f"be at most {reach} rows, so that no window misses x", padding)


@Op
def _stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    geometry = geometry_of(weight, stride, padding, dilation)
    _check_stem_gradient(x, weight, bias, maps, geometry)
    return network_kernels_for(x).stem_gradient(x, weight, bias, maps, geometry)


@_stem_gradient.fake
def _(x, weight, bias, maps, stride, padding, dilation):  # type: ignore[no-untyped-def]
    _check_stem_gradient(x, weight, bias, maps, geometry_of(weight, stride, padding, dilation))
    return [new_maps(x, x.shape[1]), x.new_empty(len(x), dtype=torch.promote_types(x.dtype, torch.float32))]


def stem_gradient(
    x: Tensor, weight: Tensor, bias: Tensor | None, maps: Tensor, geometry: Geometry
) -> list[Tensor]:
    """Computes the gradient and the value of a linear function of a rectified stem convolution.

    F[b] = sum of maps[b] max(0, y[b]), y the convolution's output before it is rounded. No map of the layer
    is written: the gradient needs only their signs.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        maps: coefficients of the function, like y, [B, C', H', W'].
        geometry: windows of the convolution; padding with zeros, of no more rows than a filter reaches over;
            dilation 1 from column to column.

    Returns:
        dF / dx like x, sums float32 at least and rounded once, and F [B], float32 at least.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _stem_gradient(x, weight, bias, maps, *steps_of(geometry, weight))
    return result


OPS = tuple(op.registered for op in (_input_gradient, _stem_convolution, _stem_gradient))
"""The registered ops of this file."""
