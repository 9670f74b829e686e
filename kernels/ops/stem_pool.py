"""A convolution that reads few channels and the max pooling that follows it, in one pass.

A network that begins with these two has its largest tensor between them, and nothing else reads it. Maps
[B, C, H, W] are channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import Geometry
from ..layouts import new_maps
from .pooling import check_max_pool, check_max_pool_backward
from .registration import Op, check_floats, check_size, must
from .stem import check_stem, geometry_of, steps_of


def _pooling_of(windows: list[int], ceil_mode: bool = False) -> Geometry:
    """Returns the pooling whose kernel, stride, padding and dilation lie one after another in `windows`."""
    must(len(windows) == 8, "windows", "be four pairs of numbers", windows)
    return Geometry(windows[:2], windows[2:4], windows[4:6], windows[6:], ceil_mode)


def _flat(pooling: Geometry) -> list[int]:
    return [number for pair in pooling.pairs for number in pair]


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, pooling: Geometry
) -> list[int]:
    """Returns the pooled height and width."""
    size = check_stem(x, weight, bias, geometry)
    between = x.new_empty(()).expand(len(x), len(weight), *size)  # only its shape is read
    return check_max_pool(between, pooling)


@Op
def _stem_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[int],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    geometry, pooling = geometry_of(weight, stride, padding, dilation), _pooling_of(windows, ceil_mode)
    _check(x, weight, bias, geometry, pooling)
    return network_kernels_for(x).stem_pool(x, weight, bias, geometry, pooling, rectified)


@_stem_pool.fake
def _(x, weight, bias, stride, padding, dilation, windows, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    geometry, pooling = geometry_of(weight, stride, padding, dilation), _pooling_of(windows, ceil_mode)
    y = new_maps(x, weight.shape[0], _check(x, weight, bias, geometry, pooling))
    return y, torch.empty_like(y, dtype=torch.uint8)


def stem_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    pooling: Geometry,
    rectified: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes `max_pool` of `stem_convolution`.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        geometry: windows of the convolution; padding with zeros, dilation 1 from column to column.
        pooling: windows of the pooling.
        rectified: whether there is a rectifier before or after the pooling.

    Returns:
        y [B, C', H', W'] and the place of each maximum, as from `max_pool`. What is pooled is rounded first.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    steps, windows = steps_of(geometry, weight), _flat(pooling)
    result: tuple[Tensor, Tensor] = _stem_pool(x, weight, bias, *steps, windows, pooling.ceil_mode, rectified)
    return result


def _check_backward(
    dy: Tensor, place: Tensor, weight: Tensor, geometry: Geometry, pooling: Geometry, size: list[int]
) -> None:
    check_floats("weight", dy, weight)
    check_size(size)
    between = geometry.output_size(size)
    must(min(between) > 0, "size", "hold a filter", size)
    check_max_pool_backward(dy, place, pooling, between)
    must(weight.shape[0] == dy.shape[1], "weight", f"write {dy.shape[1]} channels", tuple(weight.shape))


@Op
def _stem_pool_backward(
    dy: Tensor,
    place: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[int],
    size: list[int],
) -> Tensor:
    geometry, pooling = geometry_of(weight, stride, padding, dilation), _pooling_of(windows)
    _check_backward(dy, place, weight, geometry, pooling, size)
    return network_kernels_for(dy).stem_pool_backward(dy, place, weight, geometry, pooling, size)


@_stem_pool_backward.fake
def _(dy, place, weight, stride, padding, dilation, windows, size):  # type: ignore[no-untyped-def]
    geometry, pooling = geometry_of(weight, stride, padding, dilation), _pooling_of(windows)
    _check_backward(dy, place, weight, geometry, pooling, size)
    return new_maps(dy, weight.shape[1], size)


def stem_pool_backward(
    dy: Tensor, place: Tensor, weight: Tensor, geometry: Geometry, pooling: Geometry, size: list[int]
) -> Tensor:
    """Applies the adjoint of `stem_pool`'s derivative: `input_gradient` of `max_pool_backward`.

    Args:
        dy: gradient with respect to y, any float dtype [B, C', H', W'].
        place: from `stem_pool`.
        weight: filters of the convolution, as `stem_pool` takes them.
        geometry: windows of the convolution.
        pooling: windows of the pooling.
        size: height and width of x.

    Returns:
        dx [B, C, H, W]; the pooling's gradient is rounded first.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    steps, windows = steps_of(geometry, weight), _flat(pooling)
    result: Tensor = _stem_pool_backward(dy, place, weight, *steps, windows, size)
    return result


OPS = tuple(op.registered for op in (_stem_pool, _stem_pool_backward))
"""The registered ops of this file."""
