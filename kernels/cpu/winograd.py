"""Winograd's algorithm: 3 x 3 convolutions in bfloat16."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import TILES, TILES_BEYOND, Pair, size_of_3x3
from ..layouts import maps_and_mask, new_maps
from .extension import compiled


class _Extras(NamedTuple):
    """What a call of the kernel does besides the convolution.

    Attributes:
        gate: mask of a rectifier, or places of a pooling in tiles, that x as a gradient passes through first.
        unpooled: whether `gate` holds places.
        mask: written with the mask of the result, which is rectified then.
        place: written with the places of the maxima of the result, which is pooled in tiles then.
        rectified: whether what is pooled is rectified.
    """

    gate: Tensor | None = None
    unpooled: bool = False
    mask: Tensor | None = None
    place: Tensor | None = None
    rectified: bool = False


def winograd(
    level: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Pair,
    rectified: bool,
    mask: Tensor | None,
) -> list[Tensor]:
    """Runs a 3 x 3 convolution with stride 1."""
    size = size_of_3x3(x.shape[2:], padding)
    made = maps_and_mask(x, weight.shape[0] * weight.shape[3], size, rectified)
    gate = None if mask is None else mask.contiguous()
    extras = _Extras(gate, mask=made[1] if rectified else None)
    _convolve(level, (x, weight, bias), list(x.shape[2:]), padding, made[0], extras)
    return made


def winograd_pooled(
    level: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Pair,
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """Pools the convolution's tiles."""
    tiles = TILES_BEYOND if ceil_mode else TILES
    pooled = tiles.output_size(size_of_3x3(x.shape[2:], padding))
    y = new_maps(x, weight.shape[0] * weight.shape[3], pooled)
    place = torch.empty_like(y, dtype=torch.uint8)
    extras = _Extras(place=place, rectified=rectified)
    _convolve(level, (x, weight, bias), list(x.shape[2:]), padding, y, extras)
    return y, place


def winograd_unpooled(
    level: str, dy: Tensor, place: Tensor, weight: Tensor, padding: Pair, size: list[int]
) -> Tensor:
    """Convolves the input gradient of a pooling in tiles."""
    place = place.contiguous(memory_format=torch.channels_last)
    y = new_maps(dy, weight.shape[0] * weight.shape[3], size_of_3x3(size, padding))
    _convolve(level, (dy, weight, None), size, padding, y, _Extras(place, unpooled=True))
    return y


def _convolve(
    level: str,
    operands: tuple[Tensor, Tensor, Tensor | None],
    size: list[int],
    padding: Pair,
    y: Tensor,
    extras: _Extras,
) -> None:
    """Fills y, and what `extras` holds, from maps, filters and bias; `size` is that of the convolved maps."""
    x, weight, bias = operands
    x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    bias = None if bias is None else bias.float().contiguous()
    gate, unpooled, mask, place, rectified = extras
    compiled.winograd(
        level,
        (*x.shape[:2], *size, y.shape[1], *size_of_3x3(size, padding)),
        x.shape[2:] if unpooled else y.shape[2:],
        padding,
        x.data_ptr(),
        0 if gate is None else gate.data_ptr(),
        unpooled,
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        0 if mask is None else mask.data_ptr(),
        0 if place is None else place.data_ptr(),
        rectified,
        torch.get_num_threads(),
    )
