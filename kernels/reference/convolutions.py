"""Convolutions and their input gradients in plain PyTorch: what every other implementation is held to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rows import TILES, convolved_size, size_of_3x3
from .network import as_maps, as_rows, dot, max_pool, max_pool_backward, rectify, rectify_backward


def input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The input gradient of a convolution, see `convolutions.input_gradient`."""
    if mask is not None:
        (dy,) = rectify_backward([dy], mask, [dy.shape[1]])
    x = dy.new_empty(1).expand(dy.shape[0], weight.shape[1], *size)  # only its shape is read
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
    )
    return as_maps(as_rows(gradients[0]))


def _finished(y: Tensor, bias: Tensor | None, dtype: torch.dtype, rectified: bool) -> list[Tensor]:
    """What a convolution does with its sums [B, C, H, W]: maps, and their mask where they are rectified."""
    y = y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)
    if not rectified:
        return [as_maps(as_rows(y.to(dtype)))]
    return list(rectify([y.to(dtype)], None))


def stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    rectified: bool,
) -> list[Tensor]:
    """A convolution, see `convolutions.stem_convolution`."""
    working = torch.promote_types(x.dtype, torch.float32)
    y = torch.nn.functional.conv2d(x.to(working), weight.to(working), None, stride, padding, dilation)
    return _finished(y, bias, x.dtype, rectified)


def stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    """A linear function of a rectified convolution, see `convolutions.stem_gradient`."""
    h, mask = stem_convolution(x, weight, bias, stride, padding, dilation, True)
    dx = input_gradient(maps, mask, weight, stride, padding, dilation, list(x.shape[2:]))
    return [dx, dot(h, maps)]


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
    """Max pooling behind a convolution, see `stem_pools.stem_pool`."""
    (h,) = stem_convolution(x, weight, bias, stride, padding, dilation, False)
    kernel, steps, room, distance = windows
    return max_pool(h, kernel, steps, room, distance, ceil_mode, rectified)


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
    """Its input gradient, see `stem_pools.stem_pool_backward`."""
    between = convolved_size(size, weight, stride, padding, dilation)
    kernel, steps, room, distance = windows
    dh = max_pool_backward(dy, place, kernel, steps, room, distance, between)
    return input_gradient(dh, None, weight, stride, padding, dilation, size)


# Winograd's matrices, as Lavin and Gray have them: of pixels and of sums.
_PIXELS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_SUMS = ((1, 1, 1, 0), (0, 1, -1, -1))


def winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    rectified: bool,
    mask: Tensor | None,
) -> list[Tensor]:
    """A convolution of 3 x 3 in the domain of Winograd's tiles, see `winograd.winograd`."""
    if mask is not None:
        (x,) = rectify_backward([x], mask, [x.shape[1]])
    working = torch.promote_types(x.dtype, torch.float32)
    panels, places, words, panel, _ = weight.shape
    filters = weight.permute(1, 0, 3, 2, 4).reshape(places, panels * panel, 2 * words).to(working)
    size = size_of_3x3(x.shape[2:], padding)
    (down, before), (right, left) = (
        (2 * ((rows + 1) // 2) + 2 - length - p, p)
        for rows, length, p in zip(size, x.shape[2:], padding, strict=True)
    )
    padded = torch.nn.functional.pad(x.to(working), (left, right, before, down))
    pixels, sums = (torch.tensor(rows, dtype=working, device=x.device) for rows in (_PIXELS, _SUMS))
    turned = torch.einsum("ia,bkyxac,jc->ijbyxk", pixels, padded.unfold(2, 4, 2).unfold(3, 4, 2), pixels)
    turned = turned.to(x.dtype).to(working)
    products = (
        (turned.flatten(2, 4).flatten(0, 1) @ filters.mT).unflatten(1, turned.shape[2:5]).unflatten(0, (4, 4))
    )
    y = torch.einsum("ia,acbyxn,jc->bnyixj", sums, products, sums).flatten(4, 5).flatten(2, 3)
    return _finished(y[:, :, : size[0], : size[1]], bias, x.dtype, rectified)


def winograd_pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], ceil_mode: bool, rectified: bool
) -> tuple[Tensor, Tensor]:
    """The same and max pooling, see `winograd.winograd_pooled`."""
    (y,) = winograd(x, weight, bias, padding, False, None)
    return max_pool(y, *TILES, ceil_mode, rectified)


def winograd_unpooled(
    dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
) -> Tensor:
    """The same of a pooling's gradient, see `winograd.winograd_unpooled`."""
    gradient = max_pool_backward(dy, place, *TILES, size)
    (y,) = winograd(gradient, weight, None, padding, False, None)
    return y


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
    """A convolution of 1 x 1, see `pointwise.pointwise`."""
    working = torch.promote_types(x.dtype, torch.float32)
    filters = weight.transpose(1, 2).flatten(2).flatten(0, 1).to(working)  # [C', C]
    return _finished(as_maps(as_rows(x).to(working) @ filters.mT), bias, x.dtype, rectified)
