"""Subtracts penalties from the gradient of z, so that pictures stay smooth and moderate.

These are total variation, L1, L2, and a restoring force on values that saturate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Config
from ..kernels import ops

_LIMIT = 3.0  # logit of the values 0.047 and 0.953, beyond which `saturation` pulls back
_SMALL = 1e-3  # differences far below this count by their square, so that the slope has no jump at 0


def penalized(dz: Tensor, z: Tensor, color: Tensor, config: Config) -> Tensor:
    """Returns dz - rms(dz) (total_variation TV'(z) + l1 sign(z) + l2 z + saturation S'(z)).

    The rms is over each picture: strengths are in units of the gradient, so one strength suits every network.
    S is half the sum of squares of how far the logits color z lie beyond ±3: the slope of the logistic
    function vanishes where it saturates, so nothing else stops a value that its neighbors push on through a
    shared coefficient.

    Args:
        dz: gradient of the objective with respect to z, [B, C, H, W].
        z: the picture before the logistic function, [B, C, H, W].
        color: matrix from z to the logits of the picture's values, [C, C].
        config: its `total_variation`, `l1`, `l2` and `saturation` are read.
    """
    kept = dz
    if config.saturation:
        kept = ops.restrain(dz, z, color, config.saturation, _LIMIT)
    if not (config.total_variation or config.l1 or config.l2):
        return kept
    pull = torch.zeros_like(z)
    if config.total_variation:
        pull = pull + config.total_variation * total_variation_gradient(z)
    if config.l1:
        pull = pull + config.l1 * z.sign()
    if config.l2:
        pull = pull + config.l2 * z
    energy = dz.square()
    while energy.ndim > 1:  # one axis at a time: one long mean would be split among threads
        energy = energy.mean(-1)
    return kept - energy.sqrt().view(-1, 1, 1, 1) * pull


def total_variation_gradient(z: Tensor) -> Tensor:
    """Returns the gradient of total variation, shaped like z.

    Total variation is the sum of sqrt(d^2 + 1e-6) over all differences d of neighbors, down and right.
    """
    total = torch.zeros_like(z)
    for axis in (2, 3):
        difference = z.diff(dim=axis)
        slope = difference / (difference.square() + _SMALL**2).sqrt()
        edge = torch.zeros_like(slope.narrow(axis, 0, 1))
        total = total + torch.cat((edge, slope), axis) - torch.cat((slope, edge), axis)
    return total
