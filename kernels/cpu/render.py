"""Rendering and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from .extension import compiled


def render(
    level: str,
    z: Tensor,
    color: Tensor,
    mean: Tensor,
    std: Tensor,
    warp: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Computes x = cast((warp(sigmoid(color @ z)) - mean) / std)."""
    # Other dtypes than these two are one more rounding, or none, away from float32.
    made = dtype if dtype == torch.bfloat16 else torch.float32
    x = torch.empty_like(z, dtype=made, memory_format=torch.channels_last)
    color, mean, std = color.contiguous(), mean.contiguous(), std.contiguous()
    where, _kept = _pictures(level, z, warp)
    compiled.render(
        *where,
        z.data_ptr(),
        color.data_ptr(),
        mean.data_ptr(),
        std.data_ptr(),
        x.data_ptr(),
        made == torch.bfloat16,
    )
    return x.to(dtype)


def render_backward(
    level: str, g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None
) -> Tensor:
    """Computes dz = color^T @ (s (1 - s) warp^T(g / std)), s = sigmoid(color @ z)."""
    g = g if g.dtype == torch.bfloat16 else g.float()
    g = g.contiguous(memory_format=torch.channels_last)
    dz = torch.empty_like(z)
    color, std = color.contiguous(), std.contiguous()
    where, _kept = _pictures(level, z, warp)
    compiled.render_backward(
        *where,
        g.data_ptr(),
        g.dtype == torch.bfloat16,
        z.data_ptr(),
        color.data_ptr(),
        std.data_ptr(),
        dz.data_ptr(),
    )
    return dz


def _pictures(level: str, z: Tensor, warp: Tensor | None) -> tuple[tuple[object, ...], Tensor | None]:
    """Returns the first arguments of both kernels, and the tensor that must live until they return."""
    warp = None if warp is None else warp.contiguous()
    jitter = warp.data_ptr() if warp is not None and warp.ndim == 2 else 0
    affine = warp.data_ptr() if warp is not None and warp.ndim == 3 else 0
    return (level, tuple(z.shape), jitter, affine, torch.get_num_threads()), warp
