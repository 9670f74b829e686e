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


def _mean_square(x: Tensor) -> Tensor:
    """Mean of squares of every image, [B, ...] to [B].

    Summed one axis at a time: a single sum of one image would be split among threads, and its bits would
    depend on the batch and on the number of threads.
    """
    total = x.square().flatten(3) if x.ndim > 4 else x.square()
    while total.ndim > 1:
        total = total.sum(-1)
    return total / x[0].numel()


def ascend_(
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
    """One step of ascent in place, returns the gradient's mean square per image, see `ops.ascend_`."""
    energy = _mean_square(dp)
    g, mean_square = dp, energy
    if weight_decay:
        g = dp - weight_decay * p
        mean_square = _mean_square(g)
    rate, debias1, debias2 = (column.view(-1, *[1] * (p.ndim - 1)) for column in schedule.unbind(1))
    new_v = None
    if v is None:
        rms = mean_square.sqrt().view_as(rate)
        new_m = torch.addcdiv(beta1 * m, g, rms + epsilon)
        new_p = p + rate * new_m
    else:
        new_m = m.lerp(g, 1 - beta1)
        if band is not None:
            index = band.flatten().expand(len(p), -1)
            total = torch.zeros_like(v).scatter_add_(1, index, g.square().flatten(1))
            count = torch.zeros_like(v[0]).scatter_add_(0, index[0], v.new_ones(band.numel()))
            new_v = v.lerp(total / count.clamp_min(1), 1 - beta2)
            spread = new_v.gather(1, index).view_as(p)
        else:
            new_v = v.lerp(g.square() if v.shape == p.shape else mean_square, 1 - beta2)
            spread = new_v if v.shape == p.shape else new_v.view_as(rate)
        new_p = torch.addcdiv(p, rate * debias1 * new_m, (spread * debias2).sqrt() + epsilon)
    finite = energy.isfinite()
    for old, new in ((p, new_p), (m, new_m), (v, new_v)):
        if old is not None and new is not None:
            old.copy_(torch.where(finite.view(-1, *[1] * (old.ndim - 1)), new, old))
    return energy


def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Dz - strength rms(dz) color^T (u - clamp(u)) with u = color @ z, see `ops.restrain`."""
    logits = _mix(color, z)
    beyond = _mix(color.T.contiguous(), logits - logits.clamp(-limit, limit))
    return dz - strength * _mean_square(dz).sqrt().view(-1, 1, 1, 1) * beyond
