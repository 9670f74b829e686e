"""Rectifiers and their masks in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def as_rows(x: Tensor) -> Tensor:
    """Moves channels to the last axis: maps [B, C, H, W] have them second, anything else last already."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def as_maps(rows: Tensor) -> Tensor:
    """Inverts `as_rows`; maps come out channels last."""
    return rows.contiguous().movedim(-1, 1) if rows.ndim == 4 else rows.contiguous()


def _pack(positive: Tensor) -> Tensor:
    """Packs booleans [..., C] as bits, eight channels per byte, the first in the lowest bit."""
    missing = -positive.shape[-1] % 8
    bits = torch.nn.functional.pad(positive.to(torch.uint8), (0, missing)).unflatten(-1, (-1, 8))
    return bits.mul(2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1, dtype=torch.uint8)


def _unpack(mask: Tensor, channels: int) -> Tensor:
    bits = mask.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (bits & 1).flatten(-2)[..., :channels].bool()


def rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Computes y = relu(cat(parts) + other) and the mask of where it is on."""
    rows = [as_rows(part) if other is None else as_rows(part + other) for part in parts]
    mask = torch.cat([_pack(~(part <= 0)) for part in rows], -1)
    return as_maps(torch.relu(torch.cat(rows, -1))), mask


def positive(y: Tensor) -> Tensor:
    """Returns the mask of where y is not 0 or less."""
    return _pack(~(as_rows(y) <= 0))


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """Masks the sum of the gradients and splits it into parts."""
    total = as_rows(gradients[0] if len(gradients) == 1 else gradients[0] + gradients[1])
    masks = mask.split([-(-count // 8) for count in channels], -1)
    return [
        as_maps(torch.where(_unpack(bits, part.shape[-1]), part, torch.zeros_like(part)))
        for part, bits in zip(total.split(channels, -1), masks, strict=True)
    ]
