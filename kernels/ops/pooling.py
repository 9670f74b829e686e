"""The max-pooling ops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import windows_in
from ..layouts import new_maps
from .registration import Op, check_floats, check_place, must

LARGEST_WINDOW = 255
"""Positions that a window of `max_pool` may have, so that one fits a byte."""


def _check_windows(kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> None:
    for name, pair, least in (("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1)):
        must(len(pair) == 2 and min(pair) >= least, name, "be two whole numbers of at least 1", pair)
    fits = kernel[0] * kernel[1] <= LARGEST_WINDOW
    must(fits, "kernel", f"have at most {LARGEST_WINDOW} positions", kernel)
    halves = len(padding) == 2 and all(0 <= 2 * p <= k for p, k in zip(padding, kernel, strict=True))
    must(halves, "padding", "be two numbers from 0 to half the kernel", padding)


def check_max_pool(x: Tensor, windows: Sequence[list[int]], ceil_mode: bool) -> list[int]:
    """Height and width of what is pooled; raises where an argument of `max_pool` does not fit."""
    must(x.ndim == 4, "x", "be [B, C, H, W]", tuple(x.shape))
    check_floats("x", x)
    kernel, _, _, dilation = windows
    _check_windows(*windows)
    sizes = windows_in(x.shape[2:], windows, ceil_mode)
    # A dilated window steps over a picture that is smaller than its steps, and has no maximum.
    fits = min(sizes) > 0 and all(d <= length for d, length in zip(dilation, x.shape[2:], strict=True))
    must(fits, "x", f"hold a window of {kernel}", tuple(x.shape))
    return sizes


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
    check_max_pool(x, (kernel, stride, padding, dilation), ceil_mode)
    return network_kernels_for(x).max_pool(x, kernel, stride, padding, dilation, ceil_mode, rectified)


@_max_pool.fake
def _(x, kernel, stride, padding, dilation, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    sizes = check_max_pool(x, (kernel, stride, padding, dilation), ceil_mode)
    y = new_maps(x, x.shape[1], sizes)
    return y, torch.empty_like(y, dtype=torch.uint8)


def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool = False,
    rectified: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maxima of windows, behind a rectifier or not, and where in its window each lies.

    The first of equal values counts; NaN counts as the largest. The maximum of rectified values is the
    rectified maximum, so that the rectifier costs nothing.

    Args:
        x: maps, any float dtype [B, C, H, W].
        kernel: height and width of the windows, at most 255 positions.
        stride: down and right, in pixels.
        padding: rows and columns around the picture that no maximum is taken from.
        dilation: distance of a window's positions, in pixels.
        ceil_mode: whether windows may reach beyond the end, as in PyTorch.
        rectified: whether y is the maximum of relu(x).

    Returns:
        y [B, C, H', W'] and the place of each maximum, uint8, like y: row * width + column in its window,
        or 255 where y is a rectifier's zero.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _max_pool(x, kernel, stride, padding, dilation, ceil_mode, rectified)
    return result


def check_max_pool_backward(dy: Tensor, place: Tensor, windows: Sequence[list[int]], size: list[int]) -> None:
    """Raises where an argument of `max_pool_backward` does not fit."""
    must(dy.ndim == 4, "dy", "be [B, C, H, W]", tuple(dy.shape))
    check_floats("dy", dy)
    check_place(place, dy)
    _check_windows(*windows)
    must(len(size) == 2 and min(size) >= 1, "size", "be height and width", size)
    counts = (windows_in(size, windows, ceil_mode) for ceil_mode in (False, True))
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
    check_max_pool_backward(dy, place, (kernel, stride, padding, dilation), size)
    return network_kernels_for(dy).max_pool_backward(dy, place, kernel, stride, padding, dilation, size)


@_max_pool_backward.fake
def _(dy, place, kernel, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    check_max_pool_backward(dy, place, (kernel, stride, padding, dilation), size)
    return new_maps(dy, dy.shape[1], size)


def max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The adjoint of `max_pool`'s derivative: each gradient goes to where its maximum was.

    Args:
        dy: gradient with respect to y, any float dtype [B, C, H', W'].
        place: from `max_pool`; `kernel`, `stride`, `padding` and `dilation` as there.
        kernel: as for `max_pool`.
        stride: as for `max_pool`.
        padding: as for `max_pool`.
        dilation: as for `max_pool`.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; gradients of overlapping windows are added in float32 and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _max_pool_backward(dy, place, kernel, stride, padding, dilation, size)
    return result


OPS = tuple(op.registered for op in (_max_pool, _max_pool_backward))
"""The ops in here, for callers that list them."""
