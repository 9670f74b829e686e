"""Sums over pictures in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .ascend import mean_square
from .rectify import as_rows
from .render import mix


def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Computes dz - strength rms(dz) color^T (u - clamp(u, -limit, limit)), u = color @ z."""
    logits = mix(color, z)
    beyond = mix(color.T.contiguous(), logits - logits.clamp(-limit, limit))
    return dz - strength * mean_square(dz).sqrt().view(-1, 1, 1, 1) * beyond


def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sums h times maps over each image, in float32 at least."""
    wide = torch.promote_types(h.dtype, torch.float32)
    total = as_rows(h.to(wide) * maps.to(wide))
    while total.ndim > 1:  # one axis at a time, so that threads cannot change the bits
        total = total.sum(-1)
    return total
