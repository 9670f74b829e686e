"""The door to the ops inside a network: rectifiers and pooling that keep bits and bytes for the way back.

The same rules as in `ops`, which lists these too. Maps [B, C, H, W] are channels last; tensors of other
dimensions have their channels in the last axis. A *mask* holds one bit a value, eight channels a byte, the
first in the lowest bit: uint8 [..., sum of ceil(C / 8) over the parts], with maps [B, H, W, ...].

Called as they are, the functions run what `backends` chooses; while something is compiled, or on tensors
without memory, they are nodes of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .backends import network_kernels_for
from .doors import Op, check_floats, check_mask, check_place, must
from .rows import channels_of, new_maps, new_mask, windows_in

LARGEST_WINDOW = 255
"""Positions that a window of `max_pool` may have, so that one fits a byte."""


def _rows_shape(x: Tensor, channels: int) -> tuple[int, ...]:
    """Shape with the channels last and as many as told."""
    return (x.shape[0], *x.shape[2:], channels) if x.ndim == 4 else (*x.shape[:-1], channels)


def _bytes(channels: list[int]) -> int:
    return sum(-(-count // 8) for count in channels)


def _check_rectify(parts: list[Tensor], other: Tensor | None) -> None:
    must(len(parts) > 0, "parts", "be at least one tensor", "none")
    check_floats("parts", *parts)
    for part in parts:
        must(part.ndim >= 1, "parts", "have channels", tuple(part.shape))
        same = _rows_shape(part, 1) == _rows_shape(parts[0], 1)
        must(same, "parts", "differ in their channels only", [tuple(p.shape) for p in parts])
    if other is not None:
        must(len(parts) == 1, "parts", "be one tensor where `other` is given", len(parts))
        must(other.shape == parts[0].shape, "other", f"be {tuple(parts[0].shape)}", tuple(other.shape))
        check_floats("other", parts[0], other)


@Op
def _rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_rectify(parts, other)
    return network_kernels_for(parts[0]).rectify(parts, other)


@_rectify.fake
def _(parts, other):  # type: ignore[no-untyped-def]
    _check_rectify(parts, other)
    channels = [channels_of(part) for part in parts]
    mask = new_mask(parts[0], channels)
    return new_maps(parts[0], sum(channels)), mask


def rectify(parts: list[Tensor], other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The rectifier behind a concatenation of channels, or behind a sum, and where it is on.

    y = relu(cat(parts)), or relu(part + other)

    Args:
        parts: tensors that differ in their channels only, any float dtype; one where `other` is given.
        other: what is added, like the part.

    Returns:
        y, and its mask: on wherever y is not 0; NaN is on, as PyTorch has it.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _rectify(parts, other)
    return result


@Op
def _positive(y: Tensor) -> Tensor:
    check_floats("y", y)
    return network_kernels_for(y).positive(y)


@_positive.fake
def _(y):  # type: ignore[no-untyped-def]
    check_floats("y", y)
    return new_mask(y, [channels_of(y)])


def positive(y: Tensor) -> Tensor:
    """The mask of a rectifier that has run already: on wherever y is not 0 or less.

    Args:
        y: what the rectifier gave, any float dtype.

    Raises:
        ValueError, TypeError: y is empty or of another dtype.
    """
    result: Tensor = _positive(y)
    return result


def _check_rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> None:
    must(len(gradients) in (1, 2), "gradients", "be one or two tensors", len(gradients))
    check_floats("gradients", *gradients)
    first = gradients[0]
    must(gradients[-1].shape == first.shape, "gradients", "have one shape", tuple(gradients[-1].shape))
    must(sum(channels) == channels_of(first), "channels", f"add up to {channels_of(first)}", channels)
    check_mask(mask, _rows_shape(first, _bytes(channels)))


@Op
def _rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    _check_rectify_backward(gradients, mask, channels)
    return network_kernels_for(gradients[0]).rectify_backward(gradients, mask, channels)


@_rectify_backward.fake
def _(gradients, mask, channels):  # type: ignore[no-untyped-def]
    _check_rectify_backward(gradients, mask, channels)
    return [new_maps(gradients[0], count) for count in channels]


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """The adjoint of `rectify`'s derivative.

    cat(dx) = mask * (sum of gradients)

    Args:
        gradients: with respect to y, from one reader or two of it; slices of other tensors are welcome.
        mask: from `rectify` or `positive`.
        channels: of each part.

    Returns:
        The gradient of each part; that of `other` is the same.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _rectify_backward(gradients, mask, channels)
    return result


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


OPS = tuple(op.registered for op in (_rectify, _positive, _rectify_backward, _max_pool, _max_pool_backward))
"""Every op in here, for those who list them."""
