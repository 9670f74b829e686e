"""The update in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_square(x: Tensor) -> Tensor:
    """Computes the mean of squares of every image, [B, ...] to [B].

    Summed one axis at a time: a single sum of one image would be split among threads, and its bits would
    depend on the batch and on the number of threads.
    """
    total = x.square().flatten(3) if x.ndim > 4 else x.square()
    while total.ndim > 1:
        total = total.sum(-1)
    return total / x[0].numel()


def ascend_(
    p: Tensor,
    m: Tensor,
    v: Tensor | None,
    dp: Tensor,
    schedule: Tensor,
    band: Tensor | None,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> Tensor:
    """Takes one step of ascent in place and returns the gradient's mean square per image [B]."""
    energy = mean_square(dp)
    g, square = dp, energy
    if weight_decay:
        g = dp - weight_decay * p
        square = mean_square(g)
    rate, debias1, debias2 = (column.view(-1, *[1] * (p.ndim - 1)) for column in schedule.unbind(1))
    new_v = None
    if v is None:
        rms = square.sqrt().view_as(rate)
        new_m = torch.addcdiv(beta1 * m, g, rms + epsilon)
        new_p = p + rate * new_m
    else:
        new_m = m.lerp(g, 1 - beta1)
        if band is not None:
            index = band.flatten().expand(len(p), -1)
            total = torch.zeros_like(v).scatter_add_(1, index, g.square().flatten(1))
            count = torch.zeros_like(v[0]).scatter_add_(0, index[0], v.new_ones(band.numel()))
            new_v = v.lerp(total / count.clamp_min(1), 1 - beta2)
            spread = new_v.gather(1, index).view_as(p)
        else:
            new_v = v.lerp(g.square() if v.shape == p.shape else square, 1 - beta2)
            spread = new_v if v.shape == p.shape else new_v.view_as(rate)
        new_p = torch.addcdiv(p, rate * debias1 * new_m, (spread * debias2).sqrt() + epsilon)
    finite = energy.isfinite()
    for old, new in ((p, new_p), (m, new_m), (v, new_v)):
        if old is not None and new is not None:
            old.copy_(torch.where(finite.view(-1, *[1] * (old.ndim - 1)), new, old))
    return energy
