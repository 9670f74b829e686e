"""Rectifiers and their masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import channels_of, new_maps, new_mask, rows_of
from .extension import compiled


def rectify(level: str, parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Computes y = relu(cat(parts) + other) and the mask of where it is on."""
    counts = [channels_of(part) for part in parts]
    y, mask = new_maps(parts[0], sum(counts)), new_mask(parts[0], counts)
    _rectify(level, parts, other, y.data_ptr(), mask)
    return y, mask


def positive(level: str, y: Tensor) -> Tensor:
    """Returns the mask of where y is not 0 or less."""
    mask = new_mask(y, [channels_of(y)])
    _rectify(level, [y], None, 0, mask)
    return mask


def _rectify(level: str, parts: list[Tensor], other: Tensor | None, y: int, mask: Tensor) -> None:
    rows = [rows_of(part) for part in parts]
    other, other_stride = (None, 0) if other is None else rows_of(other)
    compiled.rectify(
        level,
        parts[0].numel() // channels_of(parts[0]),
        [(channels_of(part), stride, part.data_ptr()) for part, stride in rows],
        0 if other is None else other.data_ptr(),
        other_stride,
        y,
        mask.data_ptr(),
        parts[0].dtype == torch.bfloat16,
        torch.get_num_threads(),
    )


def rectify_backward(level: str, gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """Masks the sum of the gradients and splits it into parts."""
    g, g_stride = rows_of(gradients[0])
    other, other_stride = rows_of(gradients[1]) if len(gradients) > 1 else (None, 0)
    mask = mask.contiguous()
    parts = [new_maps(g, count) for count in channels]
    compiled.rectify_backward(
        level,
        g.numel() // channels_of(g),
        [(count, count, part.data_ptr()) for count, part in zip(channels, parts, strict=True)],
        g.data_ptr(),
        g_stride,
        0 if other is None else other.data_ptr(),
        other_stride,
        mask.data_ptr(),
        g.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return parts
