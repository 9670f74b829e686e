"""Max pooling inside a network; the formulas are in `ops.pooling`.

These ops are bound by memory. A program takes a block of results, with channels as the fastest axis. In the
backward pass a pixel gathers from the windows that reach it, in a fixed order, so there are no atomic sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..geometry import Geometry
from ..layouts import new_maps
from ._launch import configuration, on

NOWHERE = tl.constexpr(255)
"""The place of a maximum that the rectifier set to zero."""


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
    """Writes a block of maxima and their places."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = index < count
    channel, pixel = index % channels, index // channels
    right, down = pixel % out_width, pixel // out_width % out_height
    picture = pixel // out_width // out_height
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    place = tl.full((BLOCK,), -1, tl.int32)
    for tap in range(KERNEL_H * KERNEL_W):
        i, j = tap // KERNEL_W, tap % KERNEL_W
        row, column = (
            down * stride_h - padding_h + i * dilation_h,
            right * stride_w - padding_w + j * dilation_w,
        )
        inside = valid & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        offset = ((picture * height + row) * width + column) * channels + channel
        value = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        # Takes the first position inside the input even where all values are -inf.
        better = inside & ((value > best) | (value != value) | (place < 0))
        best = tl.where(better, value, best)
        place = tl.where(better, tap, place)
    if RECTIFIED:
        off = best <= 0.0
        best, place = tl.where(off, 0.0, best), tl.where(off, NOWHERE, place)
    tl.store(y_ptr + index, best.to(y_ptr.dtype.element_ty), mask=valid)
    tl.store(place_ptr + index, place.to(tl.uint8), mask=valid)


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
    """Writes a block of input gradients, each gathered from the windows that reach it."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = index < count
    channel, pixel = index % channels, index // channels
    right, down = pixel % width, pixel // width % height
    picture = pixel // width // height
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(KERNEL_H * KERNEL_W):
        # From the last tap to the first, that is, from the first window to the last.
        tap = KERNEL_H * KERNEL_W - 1 - step
        i, j = tap // KERNEL_W, tap % KERNEL_W
        across, along = down + padding_h - i * dilation_h, right + padding_w - j * dilation_w
        row, column = across // stride_h, along // stride_w
        reaches = valid & (across >= 0) & (along >= 0) & (row < out_height) & (column < out_width)
        reaches = reaches & (across % stride_h == 0) & (along % stride_w == 0)
        offset = ((picture * out_height + row) * out_width + column) * channels + channel
        place = tl.load(place_ptr + offset, mask=reaches, other=255).to(tl.int32)
        taken = reaches & (place == tap)
        total += tl.load(dy_ptr + offset, mask=taken, other=0.0).to(tl.float32)
    tl.store(dx_ptr + index, total.to(dx_ptr.dtype.element_ty), mask=valid)


def max_pool(x: Tensor, geometry: Geometry, rectified: bool) -> tuple[Tensor, Tensor]:
    """Returns the maxima and the place of each in its window."""
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
    """Returns the input gradient: each gradient goes to where its maximum was."""
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
