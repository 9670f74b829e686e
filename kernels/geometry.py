"""The geometry of convolutions and poolings: their windows, and the sizes of what they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Pair = list[int] | tuple[int, ...]
"""Two numbers: down and right, or height and width."""


class Geometry(NamedTuple):
    """The windows of a convolution or a pooling.

    A named tuple of numbers, since the code of a program names it as a constant.

    Attributes:
        kernel: height and width of a window, in positions.
        stride: distance of the windows, down and right, in pixels.
        padding: rows and columns around the picture.
        dilation: distance of a window's positions, down and right, in pixels.
        ceil_mode: whether a pooling's windows may reach beyond the end, as in PyTorch.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool = False

    @property
    def pairs(self) -> tuple[Pair, Pair, Pair, Pair]:
        """Kernel, stride, padding and dilation."""
        return self[:4]

    def output_size(self, size: Sequence[int]) -> list[int]:
        """Returns how many windows lie down and across an input of this height and width."""
        return [self._windows_along(axis, length) for axis, length in enumerate(size)]

    def _windows_along(self, axis: int, length: int) -> int:
        kernel, stride, padding, dilation, ceil_mode = self
        step, before = stride[axis], padding[axis]
        room = length + 2 * before - dilation[axis] * (kernel[axis] - 1) - 1
        if not ceil_mode:
            return room // step + 1
        count = (room + step - 1) // step + 1
        # As in PyTorch, no window begins beyond the picture's end.
        return count - 1 if (count - 1) * step >= length + before else count


TILES = Geometry((2, 2), (2, 2), (0, 0), (1, 1))
"""A pooling in windows of 2 x 2 that do not overlap: the tiles that `winograd` writes."""
TILES_BEYOND = TILES._replace(ceil_mode=True)
"""The same where windows may reach beyond the end."""


def size_of_3x3(size: Sequence[int], padding: Pair) -> list[int]:
    """Returns the height and width that a 3 x 3 convolution with stride 1 makes."""
    return [length + 2 * p - 2 for length, p in zip(size, padding, strict=True)]
