"""Rendering and its adjoint in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_BILINEAR, _REFLECTION = 0, 2  # the codes of `aten::grid_sampler_2d_backward`


def mix(matrix: Tensor, z: Tensor) -> Tensor:
    """Applies a [C, C] matrix to the channels of [B, C, H, W]."""
    return torch.matmul(matrix, z.flatten(2)).view_as(z)


def _roll(x: Tensor, shift: Tensor) -> Tensor:
    """Rolls every image of [B, C, H, W] down and right by its own integers [B, 2], around the edges."""
    batch, _, height, width = x.shape
    rows = (torch.arange(height, device=x.device) - shift[:, :1]) % height
    columns = (torch.arange(width, device=x.device) - shift[:, 1:]) % width
    image = torch.arange(batch, device=x.device)
    return x[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _grid(warp: Tensor, shape: torch.Size) -> Tensor:
    # Positions that are not numbers make PyTorch's sampler read outside of the picture.
    finite = warp.nan_to_num(0.0, 1e12, -1e12)
    return affine_grid(finite, list(shape), align_corners=False)


def _warp(x: Tensor, warp: Tensor | None) -> Tensor:
    if warp is None:
        return x
    if warp.ndim == 2:
        return _roll(x, warp)
    return grid_sample(
        x, _grid(warp, x.shape), mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _unwarp(g: Tensor, warp: Tensor | None) -> Tensor:
    """Applies the adjoint of `_warp`."""
    if warp is None:
        return g
    if warp.ndim == 2:
        return _roll(g, -warp)
    # Only the shape of the second argument is read: the gradient of the grid is not requested.
    gradients = torch.ops.aten.grid_sampler_2d_backward(
        g, g, _grid(warp, g.shape), _BILINEAR, _REFLECTION, False, [True, False]
    )
    return gradients[0]


def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Computes x = cast((warp(sigmoid(color @ z)) - mean) / std)."""
    x = _warp(torch.sigmoid(mix(color, z)), warp)
    x = (x - mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
    # A fresh tensor in every case: the dispatcher forbids an op to return memory that it was given.
    out = torch.empty(z.shape, dtype=dtype, device=z.device, memory_format=torch.channels_last)
    return out.copy_(x)


def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Computes dz = color^T @ (s (1 - s) warp^T(g / std)), s = sigmoid(color @ z)."""
    g = torch.empty_like(z, memory_format=torch.contiguous_format).copy_(g).div_(std.view(-1, 1, 1))
    s = torch.sigmoid(mix(color, z))
    slope = torch.addcmul(s, s, s, value=-1)
    return mix(color.T.contiguous(), slope.mul_(_unwarp(g, warp)))
