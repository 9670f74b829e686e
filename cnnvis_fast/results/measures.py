"""Measures finished pictures: saturation, noise, checkerboards, borders."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def checkerboard(pictures: Tensor, stride: int) -> Tensor:
    """Returns the share of power in spikes at multiples of 1 / stride, as a network's pooling leaves them.

    A multiple counts with its power above the mean of the frequencies around it, under a Hann window, unless
    both directions are 0; a photo has almost no power there.

    Args:
        pictures: uint8 [N, C, H, W].
        stride: stride of the target in pixels; below 2 the share is 0. Periods longer than 8 pixels do not
            count, because pictures have structure of their own there.

    Returns:
        float32 [N].
    """
    size = pictures.shape[-1]
    period = min(8, 2 ** int(math.log2(stride))) if stride >= 2 else 1
    if period < 2 or size < 8 * period or pictures.shape[-2] != size:
        return torch.zeros(len(pictures))
    values = pictures.float().mean(1) / 255
    window = torch.hann_window(size, periodic=False)
    values = (values - values.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(values).abs().square()
    excess = torch.zeros(len(pictures))
    for row in range(period):
        for column in range(period):
            if row == column == 0:
                continue
            middle = round(row * size / period), round(column * size / period)
            near, around = _near(power, middle, 1), _near(power, middle, 3)
            background = (around.sum((1, 2)) - near.sum((1, 2))) / (49 - 9)
            excess += (near.sum((1, 2)) - 9 * background).clamp_min(0)
    return excess / power.sum((1, 2)).clamp_min(1e-12)


def _near(power: Tensor, middle: tuple[int, int], reach: int) -> Tensor:
    rows, columns = (torch.arange(at - reach, at + reach + 1) % power.shape[1] for at in middle)
    return power[:, rows][:, :, columns]


def border(pictures: Tensor) -> Tensor:
    """Returns contrast within 4 % of the border over contrast further in, uint8 [N, C, H, W] to float32 [N].

    Contrast is the mean absolute difference of neighbors.
    """
    values = pictures.float().mean(1) / 255
    height, width = values.shape[1:]
    edge = max(1, round(0.04 * min(height, width)))
    if min(height, width) < 4 * edge + 2:
        return torch.ones(len(pictures))
    changes = torch.zeros_like(values)
    changes[:, 1:] += values.diff(dim=1).abs()
    changes[:, :, 1:] += values.diff(dim=2).abs()
    inner = changes[:, edge:-edge, edge:-edge].mean((1, 2))
    whole, share = changes.mean((1, 2)), (height - 2 * edge) * (width - 2 * edge) / (height * width)
    outer = (whole - share * inner) / (1 - share)
    return outer / inner.clamp_min(1e-3)


def saturated_share(pictures: Tensor) -> Tensor:
    """Returns the share of values below 0.02 or above 0.98 of uint8 pictures [N, C, H, W], float32 [N]."""
    values = pictures.float() / 255
    return ((values < 0.02) | (values > 0.98)).float().mean((1, 2, 3))


def high_frequency_share(pictures: Tensor) -> Tensor:
    """Returns the share of power above 0.25 cycles per pixel, mean removed, averaged over channels.

    Maps uint8 [N, C, H, W] to float32 [N].
    """
    values = pictures.float() / 255
    values = values - values.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(values).abs().square()
    down, right = (torch.fft.fftfreq(n) for n in pictures.shape[2:])
    high = (down[:, None].square() + right.square()).sqrt() > 0.25
    total = power.sum((2, 3)).clamp_min(1e-12)
    return ((power * high).sum((2, 3)) / total).mean(1)
