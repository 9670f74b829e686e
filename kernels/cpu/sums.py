"""Sums over pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from .extension import compiled


def dot(level: str, h: Tensor, maps: Tensor) -> Tensor:
    """Sums h times maps over each image, in float32."""
    kept = torch.channels_last if h.ndim == 4 else torch.contiguous_format
    h, maps = h.contiguous(memory_format=kept), maps.contiguous(memory_format=kept)
    sums = h.new_empty(len(h), dtype=torch.float32)
    compiled.dot(
        level,
        len(h),
        h.numel() // len(h),
        h.data_ptr(),
        maps.data_ptr(),
        h.dtype == torch.bfloat16,
        sums.data_ptr(),
        torch.get_num_threads(),
    )
    return sums


def restrain(level: str, dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Computes dz - strength rms(dz) color^T (u - clamp(u, -limit, limit)), u = color @ z."""
    dz, color, out = dz.contiguous(), color.contiguous(), torch.empty_like(z)
    compiled.restrain(
        level,
        tuple(z.shape),
        dz.data_ptr(),
        z.data_ptr(),
        color.data_ptr(),
        strength,
        limit,
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
