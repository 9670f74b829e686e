"""Rectifiers inside a network; the formulas are in `ops.rectify`.

These ops are bound by memory. A program takes a block of mask bytes and the eight channels of each byte.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..layouts import channels_of, new_maps, new_mask, rows_of
from ._launch import configuration, on


@triton.jit
def _rectify_kernel(
    x_ptr,
    other_ptr,
    y_ptr,
    mask_ptr,
    x_stride,
    other_stride,
    y_stride,
    mask_stride,
    rows,
    channels,
    SUM: tl.constexpr,
    WRITE_Y: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes a block of mask bytes and, with WRITE_Y, the y of their channels."""
    bytes_a_row = tl.cdiv(channels, 8)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, byte = index // bytes_a_row, index % bytes_a_row
    lane = tl.arange(0, 8)
    channel = byte[:, None] * 8 + lane[None, :]
    valid = (row[:, None] < rows) & (channel < channels)
    x = tl.load(x_ptr + row[:, None] * x_stride + channel, mask=valid, other=0.0)
    value = x.to(tl.float32)
    if SUM:
        other = tl.load(other_ptr + row[:, None] * other_stride + channel, mask=valid, other=0.0)
        value = (value + other.to(tl.float32)).to(x.dtype).to(tl.float32)
    off = (value <= 0.0) | (valid == 0)
    if WRITE_Y:
        y = tl.where(off, 0.0, value).to(x.dtype)
        tl.store(y_ptr + row[:, None] * y_stride + channel, y, mask=valid)
    bits = tl.sum(tl.where(off, 0, 1) << lane[None, :], axis=1)
    tl.store(mask_ptr + row * mask_stride + byte, bits.to(tl.uint8), mask=row < rows)


@triton.jit
def _rectify_backward_kernel(
    g_ptr,
    other_ptr,
    mask_ptr,
    dx_ptr,
    g_stride,
    other_stride,
    mask_stride,
    rows,
    channels,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes the masked gradients of a block of mask bytes."""
    bytes_a_row = tl.cdiv(channels, 8)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, byte = index // bytes_a_row, index % bytes_a_row
    lane = tl.arange(0, 8)
    channel = byte[:, None] * 8 + lane[None, :]
    valid = (row[:, None] < rows) & (channel < channels)
    g = tl.load(g_ptr + row[:, None] * g_stride + channel, mask=valid, other=0.0)
    value = g.to(tl.float32)
    if SUM:
        other = tl.load(other_ptr + row[:, None] * other_stride + channel, mask=valid, other=0.0)
        value += other.to(tl.float32)
    bits = tl.load(mask_ptr + row * mask_stride + byte, mask=row < rows, other=0).to(tl.int32)
    is_on = ((bits[:, None] >> lane[None, :]) & 1) != 0
    dx = tl.where(is_on, value, 0.0).to(g.dtype)
    tl.store(dx_ptr + row[:, None] * channels + channel, dx, mask=valid)


def _rectify(x: Tensor, other: Tensor | None, y: Tensor | None, y_stride: int, mask: Tensor) -> None:
    """Writes y, which may begin inside the rows of a larger tensor, and the mask."""
    x, x_stride = rows_of(x)
    other, other_stride = (None, 0) if other is None else rows_of(other)
    channels = channels_of(x)
    rows, choice = x.numel() // channels, configuration("rectify", x.device)
    with on(x.device):
        _rectify_kernel[(triton.cdiv(rows * triton.cdiv(channels, 8), choice["BLOCK"]),)](
            x,
            other,
            y,
            mask,
            x_stride,
            other_stride,
            y_stride,
            mask.stride(-2) if mask.ndim > 1 else mask.shape[-1],
            rows,
            channels,
            SUM=other is not None,
            WRITE_Y=y is not None,
            **choice,
        )


def _lay_flat(x: Tensor) -> Tensor:
    """Returns x with its axes in the order of memory, channels last."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns y = relu(cat(parts) + other) and the mask of where it is on."""
    counts = [channels_of(part) for part in parts]
    y, mask = new_maps(parts[0], sum(counts)), new_mask(parts[0], counts)
    channel, byte = 0, 0
    for part, count in zip(parts, counts, strict=True):
        _rectify(part, other, _lay_flat(y)[..., channel:], sum(counts), mask[..., byte:])
        channel += count
        byte += -(-count // 8)
    return y, mask


def positive(y: Tensor) -> Tensor:
    """Returns the mask of where y is above 0."""
    mask = new_mask(y, [channels_of(y)])
    _rectify(y, None, None, 0, mask)
    return mask


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """Returns the masked sum of the gradients, split into parts."""
    rows = [rows_of(gradient) for gradient in gradients]
    first = rows[0][0]
    choice, parts, channel, byte = configuration("rectify_backward", first.device), [], 0, 0
    for count in channels:
        dx = new_maps(first, count)
        slices = [_lay_flat(gradient)[..., channel:] for gradient, _ in rows]
        bytes_of_all = dx.numel() // count * triton.cdiv(count, 8)
        with on(first.device):
            _rectify_backward_kernel[(triton.cdiv(bytes_of_all, choice["BLOCK"]),)](
                slices[0],
                slices[-1],
                mask[..., byte:],
                dx,
                rows[0][1],
                rows[-1][1],
                mask.shape[-1],
                dx.numel() // count,
                count,
                SUM=len(gradients) > 1,
                **choice,
            )
        parts.append(dx)
        channel += count
        byte += -(-count // 8)
    return parts
