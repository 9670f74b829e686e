"""The door to convolutions that read few channels, which libraries do slowly.

The same rules as in `ops`, which lists these too. Maps [B, C, H, W] are channels last. Where a rectifier is
behind a convolution, its mask is as `network` has it.

Called as they are, the functions run what `backends` chooses; while something is compiled, or on tensors
without memory, they are nodes of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import convolved_size
from ..layouts import PANEL, maps_and_mask, new_maps
from .registration import Op, check_bias, check_floats, check_mask, must

FEW_CHANNELS = 4
"""Channels that a convolution may read whose `input_gradient` is made here."""
WIDEST_FILTER = 32
"""Columns that its filters may have."""


def check_filters(weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> None:
    """Raises where filters, or how they are laid on a picture, are none that read few channels."""
    must(weight.ndim == 4, "weight", "be [C', C, height, width]", tuple(weight.shape))
    must(weight.shape[1] <= FEW_CHANNELS, "weight", f"read up to {FEW_CHANNELS} channels", weight.shape[1])
    must(weight.shape[3] <= WIDEST_FILTER, "weight", f"have at most {WIDEST_FILTER} columns", weight.shape[3])
    for name, pair, least in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
        must(len(pair) == 2 and min(pair) >= least, name, f"be two whole numbers from {least} on", pair)


def _check_input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> None:
    must(dy.ndim == 4, "dy", "be [B, C', H', W']", tuple(dy.shape))
    check_floats("dy", dy)
    if mask is not None:
        check_mask(mask, (dy.shape[0], *dy.shape[2:], -(-dy.shape[1] // 8)))
    check_floats("weight", dy, weight)
    check_filters(weight, stride, padding, dilation)
    must(weight.shape[0] == dy.shape[1], "weight", f"write {dy.shape[1]} channels", tuple(weight.shape))
    must(len(size) == 2 and min(size) >= 1, "size", "be height and width", size)
    expected = convolved_size(size, weight, stride, padding, dilation)
    must(list(dy.shape[2:]) == expected, "size", "be what dy's size comes from", size)


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
    _check_input_gradient(dy, mask, weight, stride, padding, dilation, size)
    return network_kernels_for(dy).input_gradient(dy, mask, weight, stride, padding, dilation, size)


@_input_gradient.fake
def _(dy, mask, weight, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    _check_input_gradient(dy, mask, weight, stride, padding, dilation, size)
    return new_maps(dy, weight.shape[1], size)


def input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The input gradient of a convolution that reads few channels, as a network's first does.

    dx[b, c, y, x] = sum of dy[b, o, i, j] weight[o, c, k, m] over y = s i - p + d k, x = s j - p + d m

    Args:
        dy: gradient with respect to the convolution's output, any float dtype [B, C', H', W'].
        mask: of a rectifier behind the convolution, which dy is the gradient of then, or None.
        weight: of the convolution, one group [C', C, height, width]; up to 4 channels C, up to 32 columns.
        stride: s, down and right, in pixels.
        padding: p, rows and columns of zeros around the picture.
        dilation: d, distance of the filter's positions, in pixels.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; sums are float32 at least and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _input_gradient(dy, mask, weight, stride, padding, dilation, size)
    return result


def check_stem(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[int]:
    """Height and width of the output; raises where an argument of `stem_convolution` does not fit."""
    must(x.ndim == 4, "x", "be [B, C, H, W]", tuple(x.shape))
    check_floats("x", x)
    check_floats("weight", x, weight)
    check_filters(weight, stride, padding, dilation)
    must(weight.shape[1] == x.shape[1], "weight", f"read {x.shape[1]} channels", tuple(weight.shape))
    must(weight.shape[0] % PANEL == 0, "weight", f"write a multiple of {PANEL} channels", tuple(weight.shape))
    must(dilation[1] == 1, "dilation", "leave columns side by side", dilation)
    check_bias(bias, weight.shape[0])
    size = convolved_size(x.shape[2:], weight, stride, padding, dilation)
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
    check_stem(x, weight, bias, stride, padding, dilation)
    kernels = network_kernels_for(x)
    return kernels.stem_convolution(x, weight, bias, stride, padding, dilation, rectified)


@_stem_convolution.fake
def _(x, weight, bias, stride, padding, dilation, rectified):  # type: ignore[no-untyped-def]
    size = check_stem(x, weight, bias, stride, padding, dilation)
    return maps_and_mask(x, weight.shape[0], size, rectified)


def stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    rectified: bool = False,
) -> list[Tensor]:
    """A convolution that reads few channels, as a network's first does.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        stride: down and right, in pixels.
        padding: rows and columns of zeros around the picture.
        dilation: distance of the filter's positions, in pixels; 1 from column to column.
        rectified: whether y is the rectified one.

    Returns:
        y [B, C', H', W'], and where it is rectified, its mask; sums are float32 at least and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _stem_convolution(x, weight, bias, stride, padding, dilation, rectified)
    return result


def _check_stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> None:
    size = check_stem(x, weight, bias, stride, padding, dilation)
    must(maps.shape == (len(x), len(weight), *size), "maps", "be like the output", tuple(maps.shape))
    check_floats("maps", x, maps)
    reach = dilation[0] * (weight.shape[2] - 1)
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
    _check_stem_gradient(x, weight, bias, maps, stride, padding, dilation)
    return network_kernels_for(x).stem_gradient(x, weight, bias, maps, stride, padding, dilation)


@_stem_gradient.fake
def _(x, weight, bias, maps, stride, padding, dilation):  # type: ignore[no-untyped-def]
    _check_stem_gradient(x, weight, bias, maps, stride, padding, dilation)
    return [new_maps(x, x.shape[1]), x.new_empty(len(x), dtype=torch.promote_types(x.dtype, torch.float32))]


def stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    """A linear function of a rectified convolution that reads few channels: its gradient, and its value.

    F[b] = sum of maps[b] max(0, y[b]), y as `stem_convolution` has it before it is rounded. No map of the
    layer is written: what the gradient wants of it are its signs.

    Args:
        x: maps, any float dtype [B, C, H, W]; up to 4 channels.
        weight: one group [C', C, height, width], C' a multiple of 16, up to 32 columns.
        bias: of each output channel, any float dtype, or None.
        maps: like y, [B, C', H', W'].
        stride: down and right, in pixels.
        padding: rows and columns of zeros around the picture; no more rows than a filter reaches over.
        dilation: distance of the filter's positions, in pixels; 1 from column to column.

    Returns:
        dF / dx like x, sums float32 at least and rounded once, and F [B], float32 at least.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _stem_gradient(x, weight, bias, maps, stride, padding, dilation)
    return result


OPS = tuple(op.registered for op in (_input_gradient, _stem_convolution, _stem_gradient))
"""Every op in here, for those who list them."""
