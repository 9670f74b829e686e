"""Decides how many pictures run together, by a rule that ignores how many were asked for."""

from __future__ import annotations

import torch

_CPU_BATCH, _GPU_BATCH = 4, 64  # on CPUs more is no faster (bench/NOTES.md) and pads more
_CPU_BYTES, _GPU_BYTES = 2 * 2**30, 16 * 2**30


def batch_rule(device: torch.device, picture_bytes: int) -> int:
    """Returns the largest power of two, from 1 to a limit, whose pictures fit into a budget of bytes."""
    limit, budget = (_GPU_BATCH, _GPU_BYTES) if device.type == "cuda" else (_CPU_BATCH, _CPU_BYTES)
    batch = limit
    while batch > 1 and batch * picture_bytes > budget:
        batch //= 2
    return batch
