"""How tensors inside a network lie in memory, for all backends."""

from __future__ import annotations

import torch
from torch import Tensor

PANEL = 16
"""Output channels whose weights lie side by side; our convolutions have a multiple of this many."""


def channels_of(x: Tensor) -> int:
    """Returns the number of channels: the second axis of maps [B, C, H, W], the last of anything else."""
    return x.shape[1] if x.ndim == 4 else x.shape[-1]


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """Returns x with channels side by side, copied only if needed, and the distance of its rows."""
    strides, sizes = list(x.stride()), list(x.shape)
    if x.ndim == 4:
        strides.append(strides.pop(1))
        sizes.append(sizes.pop(1))
    inner, channels = strides.pop(), sizes.pop()
    fits, row, expected = inner == 1 or channels == 1, channels, None
    for stride, size in zip(reversed(strides), reversed(sizes), strict=True):
        if size == 1:
            continue  # its stride may be anything
        if expected is None:
            row = expected = stride
        fits = fits and stride == expected
        expected *= size
    if fits and row >= channels:
        return x, row
    kept = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return x.clone(memory_format=kept), channels


def new_maps(x: Tensor, channels: int, size: list[int] | None = None) -> Tensor:
    """Makes maps without values, of x's kind, with other channels and, where given, another size."""
    if x.ndim != 4:
        return x.new_empty(*x.shape[:-1], channels)
    return x.new_empty(x.shape[0], *(size or x.shape[2:]), channels).permute(0, 3, 1, 2)


def new_mask(x: Tensor, channels: list[int]) -> Tensor:
    """Makes a mask without values, for parts of so many channels each: every part begins with a new byte."""
    outer = (x.shape[0], *x.shape[2:]) if x.ndim == 4 else x.shape[:-1]
    return x.new_empty(*outer, sum(-(-count // 8) for count in channels), dtype=torch.uint8)


def maps_and_mask(x: Tensor, channels: int, size: list[int], rectified: bool) -> list[Tensor]:
    """Makes maps of x's kind without values, and their mask where they are rectified."""
    y = new_maps(x, channels, size)
    return [y, new_mask(y, [channels])] if rectified else [y]
