"""How tensors inside a network lie in memory, and how many windows a pooling has: for all backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """How many windows there are along an axis: as in PyTorch, none begins beyond the picture's end."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def windows_in(size: Sequence[int], windows: Sequence[Sequence[int]], ceil_mode: bool) -> list[int]:
    """How many there are down and across, of kernel, stride, padding and dilation."""
    kernel, stride, padding, dilation = windows
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    return [pooled_size(*axis, ceil_mode) for axis in axes]


def convolved_size(
    size: Sequence[int], weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> list[int]:
    """Height and width of what a convolution makes."""
    return windows_in(size, (weight.shape[2:], stride, padding, dilation), False)


PANEL = 16
"""Output channels whose weights lie side by side; convolutions of ours have multiples of so many."""

TILES = [2, 2], [2, 2], [0, 0], [1, 1]
"""Kernel, stride, padding and dilation of a pooling whose windows do not overlap and are tiles of 2 x 2."""


def size_of_3x3(size: Sequence[int], padding: list[int]) -> list[int]:
    """Height and width of what a convolution of 3 x 3 makes."""
    return [length + 2 * p - 2 for length, p in zip(size, padding, strict=True)]


def channels_of(x: Tensor) -> int:
    """How many: of maps [B, C, H, W] the second axis, of anything else the last."""
    return x.shape[1] if x.ndim == 4 else x.shape[-1]


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """A tensor whose channels lie side by side, and the distance of its rows; copied only if it must be."""
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
    """Without values, of x's kind, with other channels and, where told, of another size."""
    if x.ndim != 4:
        return x.new_empty(*x.shape[:-1], channels)
    return x.new_empty(x.shape[0], *(size or x.shape[2:]), channels).permute(0, 3, 1, 2)


def new_mask(x: Tensor, channels: list[int]) -> Tensor:
    """For parts of so many channels each, see `network`; without values."""
    outer = (x.shape[0], *x.shape[2:]) if x.ndim == 4 else x.shape[:-1]
    return x.new_empty(*outer, sum(-(-count // 8) for count in channels), dtype=torch.uint8)


def maps_and_mask(x: Tensor, channels: int, size: list[int], rectified: bool) -> list[Tensor]:
    """New maps of x's kind, and a new mask of theirs where they are rectified."""
    y = new_maps(x, channels, size)
    return [y, new_mask(y, [channels])] if rectified else [y]
