"""Winograd's algorithm in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import TILES, TILES_BEYOND, size_of_3x3
from .pooling import max_pool, max_pool_backward
from .rectify import rectify_backward
from .stem import finished

# The matrices B^T of pixels and A^T of sums, as Lavin and Gray (2016) give them.
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
    """Runs a 3 x 3 convolution on Winograd's tiles."""
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
    return finished(y[:, :, : size[0], : size[1]], bias, x.dtype, rectified)


def winograd_pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], ceil_mode: bool, rectified: bool
) -> tuple[Tensor, Tensor]:
    """Pools the convolution's tiles."""
    (y,) = winograd(x, weight, bias, padding, False, None)
    return max_pool(y, TILES_BEYOND if ceil_mode else TILES, rectified)


def winograd_unpooled(
    dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
) -> Tensor:
    """Convolves the input gradient of a pooling in tiles."""
    gradient = max_pool_backward(dy, place, TILES, size)
    (y,) = winograd(gradient, weight, None, padding, False, None)
    return y
