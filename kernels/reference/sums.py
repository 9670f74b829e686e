"""The ops that sum over pictures, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .ascend import _mean_square
from .rectify import as_rows
from .render import _mix


def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Dz - strength rms(dz) color^T (u - clamp(u)) with u = color @ z, see `ops.restrain`."""
    logits = _mix(color, z)
    beyond = _mix(color.T.contiguous(), logits - logits.clamp(-limit, limit))
    return dz - strength * _mean_square(dz).sqrt().view(-1, 1, 1, 1) * beyond


def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sum of h times maps over each image, in float32 at least, see `ops.dot`."""
    wide = torch.promote_types(h.dtype, torch.float32)
    total = as_rows(h.to(wide) * maps.to(wide))
    while total.ndim > 1:  # one axis at a time, as for pictures
        total = total.sum(-1)
    return total
