"""The max-pooling ops."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import Geometry
from ..layouts import new_maps
from .registration import Op, check_floats, check_place, check_size, must

LARGEST_WINDOW = 255
"""Positions that a window of `max_pool` may have, so that one fits a byte."""


def _check_windows(geometry: Geometry) -> None:
    kernel, stride, padding, dilation, _ = geometry
    for name, pair in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        must(len(pair) == 2 and min(pair) >= 1, name, "be two whole numbers of at least 1", pair)
    fits = kernel[0] * kernel[1] <= LARGEST_WINDOW
    must(fits, "kernel", f"have at most {LARGEST_WINDOW} positions", kernel)
    halves = len(padding) == 2 and 0 <= 2 * padding[0] <= kernel[0] and 0 <= 2 * padding[1] <= kernel[1]
    must(halves, "padding", "be two numbers from 0 to half the kernel", padding)


def check_max_pool(x: Tensor, geometry: Geometry) -> list[int]:
    """Returns the pooled height and width; raises where an argument of `max_pool` does not fit."""
    must(x.ndim == 4, "x", "be [B, C, H, W]", tuple(x.shape))
    check_floats("x", x)
    _check_windows(geometry)
    size, dilation = x.shape[2:], geometry.dilation
    pooled = geometry.output_size(size)
    # A dilated window steps over a picture that is smaller than its steps, and has no maximum.
    fits = min(pooled) > 0 and dilation[0] <= size[0] and dilation[1] <= size[1]
    must(fits, "x", f"hold a window of {geometry.kernel}", tuple(x.shape))
    return pooled


@Op
def _max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(kernel, stride, padding, dilation, ceil_mode)
    check_max_pool(x, geometry)
    return network_kernels_for(x).max_pool(x, geometry, rectified)


@_max_pool.fake
def _(x, kernel, stride, padding, dilation, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    size = check_max_pool(x, Geometry(kernel, stride, padding, dilation, ceil_mode))
    y = new_maps(x, x.shape[1], size)
    return y, torch.empty_like(y, dtype=torch.uint8)


def max_pool(x: Tensor, geometry: Geometry, rectified: bool = False) -> tuple[Tensor, Tensor]:
    """Takes the maxima of windows, rectified or not, and records where in its window each lies.

    The first of equal values counts; NaN counts as the largest. The maximum of rectified values is the
    rectified maximum, so that the rectifier costs nothing.

    Args:
        x: maps, any float dtype [B, C, H, W].
        geometry: windows of at most 255 positions; no maximum is taken from the padding, which is at most
            half a window.
        rectified: whether y is the maximum of relu(x).

    Returns:
        y [B, C, H', W'] and the place of each maximum, uint8, like y: row * width + column in its window,
        or 255 where y is a rectifier's zero.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _max_pool(x, *geometry, rectified)
    return result


def check_max_pool_backward(dy: Tensor, place: Tensor, geometry: Geometry, size: list[int]) -> None:
    """Raises where an argument of `max_pool_backward` does not fit."""
    must(dy.ndim == 4, "dy", "be [B, C, H, W]", tuple(dy.shape))
    check_floats("dy", dy)
    check_place(place, dy)
    _check_windows(geometry)
    check_size(size)
    # The registered op does not know `ceil_mode`, so each axis may have either number of windows.
    counts = (Geometry(*geometry.pairs, ceil_mode).output_size(size) for ceil_mode in (False, True))
    fits = all(count in either for count, *either in zip(dy.shape[2:], *counts, strict=True))
    must(fits, "size", "be what dy's size comes from", size)


@Op
def _max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    geometry = Geometry(kernel, stride, padding, dilation)
    check_max_pool_backward(dy, place, geometry, size)
    return network_kernels_for(dy).max_pool_backward(dy, place, geometry, size)


@_max_pool_backward.fake
def _(dy, place, kernel, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    check_max_pool_backward(dy, place, Geometry(kernel, stride, padding, dilation), size)
    return new_maps(dy, dy.shape[1], size)


def max_pool_backward(dy: Tensor, place: Tensor, geometry: Geometry, size: list[int]) -> Tensor:
    """Applies the adjoint of `max_pool`'s derivative: each gradient goes to where its maximum was.

    Args:
        dy: gradient with respect to y, any float dtype [B, C, H', W'].
        place: from `max_pool`.
        geometry: that `max_pool` ran with.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; gradients of overlapping windows are added in float32 and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _max_pool_backward(dy, place, *geometry.pairs, size)
    return result


OPS = tuple(op.registered for op in (_max_pool, _max_pool_backward))
"""The registered ops of this file."""
