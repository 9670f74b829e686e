"""The door to max pooling right behind a convolution that reads few channels: both in one pass.

A network that begins like that has its largest tensor in between, which nothing else reads. The same rules as
in `ops`, which lists these too. Maps [B, C, H, W] are channels last; `windows` are kernel, stride, padding
and dilation of the pooling, two numbers each, as `network.max_pool` has them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import convolved_size
from ..layouts import new_maps
from .pooling import check_max_pool, check_max_pool_backward
from .registration import Op, check_floats, must
from .stem import check_filters, check_stem


def _pairs(windows: list[int]) -> list[list[int]]:
    must(len(windows) == 8, "windows", "be four pairs of numbers", windows)
    return [windows[at : at + 2] for at in range(0, 8, 2)]


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[int],
    ceil_mode: bool,
) -> list[int]:
    size = check_stem(x, weight, bias, stride, padding, dilation)
    pairs = _pairs(windows)
    between = x.new_empty(()).expand(len(x), len(weight), *size)  # only its shape is read
    return check_max_pool(between, pairs, ceil_mode)


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
    _check(x, weight, bias, stride, padding, dilation, windows, ceil_mode)
    kernels = network_kernels_for(x)
    return kernels.stem_pool(
        x, weight, bias, stride, padding, dilation, _pairs(windows), ceil_mode, rectified
    )


@_stem_pool.fake
def _(x, weight, bias, stride, padding, dilation, windows, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    size = _check(x, weight, bias, stride, padding, dilation, windows, ceil_mode)
    y = new_maps(x, weight.shape[0], size)
    return y, torch.empty_like(y, dtype=torch.uint8)


def stem_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[list[int]],
    ceil_mode: bool = False,
    rectified: bool = False,
) -> tuple[Tensor, Tensor]:
    """`network.max_pool` of `convolutions.stem_convolution`.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        stride: of the convolution, down and right, in pixels.
        padding: rows and columns of zeros around the picture.
        dilation: distance of the filter's positions, in pixels; 1 from column to column.
        windows: of the pooling, see above.
        ceil_mode: whether windows may reach beyond the end, as in PyTorch.
        rectified: whether there is a rectifier before or behind the pooling.

    Returns:
        y [B, C', H', W'] and the place of each maximum, as from `network.max_pool`. What is pooled is
        rounded first.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    flat = [number for pair in windows for number in pair]
    result: tuple[Tensor, Tensor] = _stem_pool(
        x, weight, bias, stride, padding, dilation, flat, ceil_mode, rectified
    )
    return result


def _check_backward(
    dy: Tensor,
    place: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    windows: list[int],
    size: list[int],
) -> None:
    pairs = _pairs(windows)
    check_floats("weight", dy, weight)
    check_filters(weight, stride, padding, dilation)
    must(len(size) == 2 and min(size) >= 1, "size", "be height and width", size)
    between = convolved_size(size, weight, stride, padding, dilation)
    must(min(between) > 0, "size", "hold a filter", size)
    check_max_pool_backward(dy, place, pairs, between)
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
    _check_backward(dy, place, weight, stride, padding, dilation, windows, size)
    kernels = network_kernels_for(dy)
    return kernels.stem_pool_backward(dy, place, weight, stride, padding, dilation, _pairs(windows), size)


@_stem_pool_backward.fake
def _(dy, place, weight, stride, padding, dilation, windows, size):  # type: ignore[no-untyped-def]
    _check_backward(dy, place, weight, stride, padding, dilation, windows, size)
    return new_maps(dy, weight.shape[1], size)


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
    """The adjoint of `stem_pool`'s derivative: `convolutions.input_gradient` of `network.max_pool_backward`.

    Args:
        dy: gradient with respect to y, any float dtype [B, C', H', W'].
        place: from `stem_pool`.
        weight: as for `stem_pool`.
        stride: as for `stem_pool`.
        padding: as for `stem_pool`.
        dilation: as for `stem_pool`.
        windows: as for `stem_pool`.
        size: height and width of x.

    Returns:
        dx [B, C, H, W]; what the pooling gives is rounded first.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    flat = [number for pair in windows for number in pair]
    result: Tensor = _stem_pool_backward(dy, place, weight, stride, padding, dilation, flat, size)
    return result


OPS = tuple(op.registered for op in (_stem_pool, _stem_pool_backward))
"""Every op in here, for those who list them."""
