"""Describes the half spectrum of a real square image in the order of `torch.fft.rfft2`."""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(size: int) -> tuple[Tensor, Tensor]:
    """Returns cycles per image, vertical and horizontal, float64 [size, 1] and [size // 2 + 1]."""
    down = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    return down[:, None], torch.fft.rfftfreq(size, 1 / size, dtype=torch.float64)


def column_weights(size: int) -> Tensor:
    """Returns how often the full spectrum holds each column of the half, float64 [size // 2 + 1].

    The weights are 1, 2, ..., 2, 1: the first column and, at even size, the last are their own mirror images
    and occur once, all others twice.
    """
    weights = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if size % 2 == 0:
        weights[-1] = 1
    return weights
