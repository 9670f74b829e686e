"""Sizes and windows of convolutions and poolings."""

from __future__ import annotations

from collections.abc import Sequence

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


TILES = [2, 2], [2, 2], [0, 0], [1, 1]
"""Kernel, stride, padding and dilation of a pooling whose windows do not overlap and are tiles of 2 x 2."""


def size_of_3x3(size: Sequence[int], padding: list[int]) -> list[int]:
    """Height and width of what a convolution of 3 x 3 makes."""
    return [length + 2 * p - 2 for length, p in zip(size, padding, strict=True)]
