"""The half spectrum of a square picture of real numbers, as `torch.fft.rfft2` orders it."""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(size: int) -> tuple[Tensor, Tensor]:
    """Cycles per image, down and right, float64 [size, 1] and [size // 2 + 1]."""
    down = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    return down[:, None], torch.fft.rfftfreq(size, 1 / size, dtype=torch.float64)


def column_weights(size: int) -> Tensor:
    """How often the whole spectrum holds each column of the half, float64 [size // 2 + 1]: 1, 2, ..., 2, 1.

    Once the first and, at even size, the last, which are their own mirror images; twice all others.
    """
    weights = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if size % 2 == 0:
        weights[-1] = 1
    return weights
