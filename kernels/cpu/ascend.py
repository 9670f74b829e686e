"""The update of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from ..second_moment import second_moment_of
from .extension import compiled


def ascend_(
    level: str,
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
    batch = p.shape[0]
    bands = v.shape[1] if v is not None and band is not None else 0
    energy = p.new_empty(batch)
    dp, schedule = dp.contiguous(), schedule.contiguous()
    band = None if band is None else band.contiguous()
    compiled.ascend_(
        level,
        batch,
        p.numel() // batch,
        bands,
        torch.get_num_threads(),
        second_moment_of(p, v, band),
        p.data_ptr(),
        m.data_ptr(),
        0 if v is None else v.data_ptr(),
        dp.data_ptr(),
        schedule.data_ptr(),
        0 if band is None else band.data_ptr(),
        beta1,
        beta2,
        epsilon,
        weight_decay,
        energy.data_ptr(),
    )
    return energy
