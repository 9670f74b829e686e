"""What is taken off the gradient of z so that pictures stay smooth and moderate.

Total variation, L1, L2, and a restoring force where values run into saturation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Config
from ..kernels import ops

_LIMIT = 3.0  # logit of the values 0.047 and 0.953, from where on `saturation` pulls back
_SMALL = 1e-3  # differences much below this count by their square, so that the slope has no jump at 0


def penalized(dz: Tensor, z: Tensor, color: Tensor, config: Config) -> Tensor:
    """The gradient with the penalties' taken off.

    dz - rms(dz) (total_variation TV'(z) + l1 sign(z) + l2 z + saturation S'(z)), rms over each picture:
    strengths are in units of the gradient, so one strength suits every network. S is half the sum of squares
    of how far the logits color z lie beyond ±3: the logistic function's slope vanishes where it saturates, so
    nothing else there holds a value back once its neighbours, through a shared coefficient, push it on.

    Args:
        dz: gradient of the objective with respect to z, [B, C, H, W].
        z: the picture before the logistic function, [B, C, H, W].
        color: from z to the logits of the picture's values, [C, C].
        config: `total_variation`, `l1`, `l2` and `saturation` are read.
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
    """The gradient of total variation, like z.

    Total variation is the sum of sqrt(d^2 + 1e-6) over all differences d of neighbours, down and right.
    """
    total = torch.zeros_like(z)
    for axis in (2, 3):
        difference = z.diff(dim=axis)
        slope = difference / (difference.square() + _SMALL**2).sqrt()
        edge = torch.zeros_like(slope.narrow(axis, 0, 1))
        total = total + torch.cat((edge, slope), axis) - torch.cat((slope, edge), axis)
    return total
