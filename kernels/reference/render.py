"""The ops on pictures in plain PyTorch: what every other implementation is held to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_BILINEAR, _REFLECTION = 0, 2  # the codes of `aten::grid_sampler_2d_backward`


def _mix(matrix: Tensor, z: Tensor) -> Tensor:
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
    # Positions that are no numbers make PyTorch's sampler read outside of the picture.
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
    """The adjoint of `_warp`."""
    if warp is None:
        return g
    if warp.ndim == 2:
        return _roll(g, -warp)
    # The second argument only lends its shape: the gradient of the grid is not asked for.
    gradients = torch.ops.aten.grid_sampler_2d_backward(
        g, g, _grid(warp, g.shape), _BILINEAR, _REFLECTION, False, [True, False]
    )
    return gradients[0]


def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """X = cast((warp(sigmoid(color @ z)) - mean) / std), see `ops.render`."""
    x = _warp(torch.sigmoid(_mix(color, z)), warp)
    x = (x - mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
    # A fresh tensor in every case: the dispatcher forbids an op to hand back memory that it was given.
    out = torch.empty(z.shape, dtype=dtype, device=z.device, memory_format=torch.channels_last)
    return out.copy_(x)


def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Dz = color^T @ (s (1 - s) warp^T(g / std)) with s = sigmoid(color @ z), see `ops.render_backward`."""
    g = torch.empty_like(z, memory_format=torch.contiguous_format).copy_(g).div_(std.view(-1, 1, 1))
    s = torch.sigmoid(_mix(color, z))
    slope = torch.addcmul(s, s, s, value=-1)
    return _mix(color.T.contiguous(), slope.mul_(_unwarp(g, warp)))
