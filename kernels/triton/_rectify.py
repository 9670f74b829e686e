"""Rectifiers, max pooling and phases inside a network, see `network` for the formulas.

All of these are bound by memory. A program of a rectifier's kernel takes a block of mask bytes and the eight
channels of each; one of the others takes a block of results, with channels as the fastest axis. On the way
back through a pooling a pixel gathers from the windows that reach it, in a fixed order, so nothing is added
by atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..geometry import Geometry
from ..layouts import channels_of, new_maps, new_mask, rows_of
from ._launch import configuration, on

NOWHERE = tl.constexpr(255)


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
    MADE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of mask bytes, and y there."""
    bytes_a_row = tl.cdiv(channels, 8)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, byte = index // bytes_a_row, index % bytes_a_row
    lane = tl.arange(0, 8)
    channel = byte[:, None] * 8 + lane[None, :]
    there = (row[:, None] < rows) & (channel < channels)
    x = tl.load(x_ptr + row[:, None] * x_stride + channel, mask=there, other=0.0)
    value = x.to(tl.float32)
    if SUM:
        other = tl.load(other_ptr + row[:, None] * other_stride + channel, mask=there, other=0.0)
        value = (value + other.to(tl.float32)).to(x.dtype).to(tl.float32)
    off = (value <= 0.0) | (there == 0)
    if MADE:
        y = tl.where(off, 0.0, value).to(x.dtype)
        tl.store(y_ptr + row[:, None] * y_stride + channel, y, mask=there)
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
    """The gradients that a block of mask bytes lets through."""
    bytes_a_row = tl.cdiv(channels, 8)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, byte = index // bytes_a_row, index % bytes_a_row
    lane = tl.arange(0, 8)
    channel = byte[:, None] * 8 + lane[None, :]
    there = (row[:, None] < rows) & (channel < channels)
    g = tl.load(g_ptr + row[:, None] * g_stride + channel, mask=there, other=0.0)
    value = g.to(tl.float32)
    if SUM:
        other = tl.load(other_ptr + row[:, None] * other_stride + channel, mask=there, other=0.0)
        value += other.to(tl.float32)
    bits = tl.load(mask_ptr + row * mask_stride + byte, mask=row < rows, other=0).to(tl.int32)
    is_on = ((bits[:, None] >> lane[None, :]) & 1) != 0
    dx = tl.where(is_on, value, 0.0).to(g.dtype)
    tl.store(dx_ptr + row[:, None] * channels + channel, dx, mask=there)


@triton.jit
def _max_pool_kernel(
    x_ptr,
    y_ptr,
    place_ptr,
    count,
    channels,
    height,
    width,
    out_height,
    out_width,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    RECTIFIED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of maxima and their places."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = index < count
    channel, pixel = index % channels, index // channels
    right, down = pixel % out_width, pixel // out_width % out_height
    image = pixel // out_width // out_height
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    place = tl.full((BLOCK,), -1, tl.int32)
    for tap in range(KERNEL_H * KERNEL_W):
        i, j = tap // KERNEL_W, tap % KERNEL_W
        row, column = (
            down * stride_h - padding_h + i * dilation_h,
            right * stride_w - padding_w + j * dilation_w,
        )
        inside = there & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        offset = ((image * height + row) * width + column) * channels + channel
        value = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        # The first position inside counts even where all values are -inf.
        better = inside & ((value > best) | (value != value) | (place < 0))
        best = tl.where(better, value, best)
        place = tl.where(better, tap, place)
    if RECTIFIED:
        off = best <= 0.0
        best, place = tl.where(off, 0.0, best), tl.where(off, NOWHERE, place)
    tl.store(y_ptr + index, best.to(y_ptr.dtype.element_ty), mask=there)
    tl.store(place_ptr + index, place.to(tl.uint8), mask=there)


@triton.jit
def _max_pool_backward_kernel(
    dy_ptr,
    place_ptr,
    dx_ptr,
    count,
    channels,
    height,
    width,
    out_height,
    out_width,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of input gradients, each gathered from the windows that reach it."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = index < count
    channel, pixel = index % channels, index // channels
    right, down = pixel % width, pixel // width % height
    image = pixel // width // height
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(KERNEL_H * KERNEL_W):
        # From the last position to the first: that is from the first window to the last.
        tap = KERNEL_H * KERNEL_W - 1 - step
        i, j = tap // KERNEL_W, tap % KERNEL_W
        across, along = down + padding_h - i * dilation_h, right + padding_w - j * dilation_w
        row, column = across // stride_h, along // stride_w
        reaches = there & (across >= 0) & (along >= 0) & (row < out_height) & (column < out_width)
        reaches = reaches & (across % stride_h == 0) & (along % stride_w == 0)
        offset = ((image * out_height + row) * out_width + column) * channels + channel
        place = tl.load(place_ptr + offset, mask=reaches, other=255).to(tl.int32)
        taken = reaches & (place == tap)
        total += tl.load(dy_ptr + offset, mask=taken, other=0.0).to(tl.float32)
    tl.store(dx_ptr + index, total.to(dx_ptr.dtype.element_ty), mask=there)


def _rectify(x: Tensor, other: Tensor | None, y: Tensor | None, y_stride: int, mask: Tensor) -> None:
    """Writes y, which may begin inside of another tensor's rows, and the bits."""
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
            MADE=y is not None,
            **choice,
        )


def _lay_flat(x: Tensor) -> Tensor:
    """The numbers in the order in which they lie in memory."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Y = relu(cat(parts) + other) and where it is on, see `network.rectify`."""
    counts = [channels_of(part) for part in parts]
    y, mask = new_maps(parts[0], sum(counts)), new_mask(parts[0], counts)
    channel, byte = 0, 0
    for part, count in zip(parts, counts, strict=True):
        _rectify(part, other, _lay_flat(y)[..., channel:], sum(counts), mask[..., byte:])
        channel += count
        byte += -(-count // 8)
    return y, mask


def positive(y: Tensor) -> Tensor:
    """Where y is above 0, see `network.positive`."""
    mask = new_mask(y, [channels_of(y)])
    _rectify(y, None, None, 0, mask)
    return mask


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """The masked sum of gradients, cut into parts, see `network.rectify_backward`."""
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


def max_pool(x: Tensor, geometry: Geometry, rectified: bool) -> tuple[Tensor, Tensor]:
    """Maxima and where in its window each lies, see `network.max_pool`."""
    x = x.contiguous(memory_format=torch.channels_last)
    y = new_maps(x, x.shape[1], geometry.output_size(x.shape[2:]))
    place = torch.empty_like(y, dtype=torch.uint8)
    choice = configuration("max_pool", x.device)
    with on(x.device):
        _max_pool_kernel[(triton.cdiv(y.numel(), choice["BLOCK"]),)](
            x,
            y,
            place,
            y.numel(),
            *x.shape[1:],
            *y.shape[2:],
            *geometry.stride,
            *geometry.padding,
            *geometry.dilation,
            KERNEL_H=geometry.kernel[0],
            KERNEL_W=geometry.kernel[1],
            RECTIFIED=rectified,
            **choice,
        )
    return y, place


def max_pool_backward(dy: Tensor, place: Tensor, geometry: Geometry, size: list[int]) -> Tensor:
    """Each gradient goes to where its maximum was, see `network.max_pool_backward`."""
    dy = dy.contiguous(memory_format=torch.channels_last)
    place = place.contiguous(memory_format=torch.channels_last)
    dx = new_maps(dy, dy.shape[1], size)
    choice = configuration("max_pool_backward", dy.device)
    with on(dy.device):
        _max_pool_backward_kernel[(triton.cdiv(dx.numel(), choice["BLOCK"]),)](
            dy,
            place,
            dx,
            dx.numel(),
            *dx.shape[1:],
            *dy.shape[2:],
            *geometry.stride,
            *geometry.padding,
            *geometry.dilation,
            KERNEL_H=geometry.kernel[0],
            KERNEL_W=geometry.kernel[1],
            **choice,
        )
    return dx
