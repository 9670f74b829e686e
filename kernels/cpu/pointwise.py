"""1 x 1 convolutions in bfloat16, as products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import maps_and_mask
from .extension import compiled


def pointwise(level: str, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
    """Runs a 1 x 1 convolution."""
    x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    channels, out_channels = x.shape[1], weight.shape[0] * weight.shape[2]
    made = maps_and_mask(x, out_channels, list(x.shape[2:]), rectified)
    bias = None if bias is None else bias.float().contiguous()
    compiled.pointwise(
        level,
        (x.numel() // channels, channels, out_channels),
        x.data_ptr(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        made[0].data_ptr(),
        made[1].data_ptr() if rectified else 0,
        torch.get_num_threads(),
    )
    return made
