"""`render` and its adjoint, one pass each: one program per tile of a picture.

    x  = cast((warp(s) - mean) / std)                            s = sigmoid(color @ z)
    dz = color^T @ (s (1 - s) warp^T(g / std))

z and dz are [B, C, H, W] and contiguous, x is channels-last, g may have any memory layout. C is small and
known at compile time: the channels of a pixel are a tuple of blocks, so colors are mixed in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import configuration, on
from ._warp import _add, _fold, _matrix, _roll, _source, _unwarp, _zeros


@triton.jit
def _tile(height, width, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """Returns the picture (int64, for offsets), the first row and the first column of this program."""
    across = tl.cdiv(width, BLOCK_W)
    tiles = across * tl.cdiv(height, BLOCK_H)
    program = tl.program_id(0)
    tile = program % tiles
    return (program // tiles).to(tl.int64), tile // across * BLOCK_H, tile % across * BLOCK_W


@triton.jit
def _picture(z_ptr, color_ptr, offset, plane, mask, C: tl.constexpr):
    """Returns the C channels of s = sigmoid(color @ z) at these offsets within a plane."""
    z = ()
    for j in tl.static_range(C):
        z += (tl.load(z_ptr + j * plane + offset, mask=mask, other=0.0),)
    s = ()
    for i in tl.static_range(C):
        u = tl.load(color_ptr + i * C) * z[0]
        for j in tl.static_range(1, C):
            u += tl.load(color_ptr + (i * C + j)) * z[j]
        s += (tl.sigmoid(u),)
    return s


@triton.jit
def _render_kernel(
    z_ptr,
    color_ptr,
    mean_ptr,
    std_ptr,
    warp_ptr,
    x_ptr,
    height,
    width,
    WARP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    picture, first_row, first_column = _tile(height, width, BLOCK_H, BLOCK_W)
    row = first_row + tl.arange(0, BLOCK_H)[:, None]
    column = first_column + tl.arange(0, BLOCK_W)[None, :]
    mask = (row < height) & (column < width)
    plane = tl.cast(height, tl.int64) * width
    z_ptr += picture * C * plane

    if WARP == "affine":
        half_w, half_h = 0.5 * (width - 1), 0.5 * (height - 1)
        x, y = _source(column - half_w, row - half_h, _matrix(warp_ptr, picture, height, width))
        _, x = _fold(x, width)
        _, y = _fold(y, height)
        left, top = tl.floor(x + half_w), tl.floor(y + half_h)
        s = _zeros(C, BLOCK_H, BLOCK_W)
        for i in tl.static_range(2):
            for j in tl.static_range(2):
                weight = (1.0 - tl.abs(y - (top + i - half_h))) * (1.0 - tl.abs(x - (left + j - half_w)))
                # The second neighbor of the last pixel does not exist; its weight is 0.
                at_row = tl.minimum(top + i, height - 1.0).to(tl.int64)
                at_column = tl.minimum(left + j, width - 1.0).to(tl.int64)
                s = _add(s, weight, _picture(z_ptr, color_ptr, at_row * width + at_column, plane, mask, C), C)
    else:
        from_row, from_column = row.to(tl.int64), column.to(tl.int64)
        if WARP == "jitter":
            from_row = _roll(from_row, tl.load(warp_ptr + 2 * picture) % height, height)
            from_column = _roll(from_column, tl.load(warp_ptr + 2 * picture + 1) % width, width)
        s = _picture(z_ptr, color_ptr, from_row * width + from_column, plane, mask, C)

    x_ptr += (picture * plane + row.to(tl.int64) * width + column) * C
    for c in tl.static_range(C):
        value = (s[c] - tl.load(mean_ptr + c)) / tl.load(std_ptr + c)
        tl.store(x_ptr + c, value.to(x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _render_backward_kernel(
    g_ptr,
    z_ptr,
    color_ptr,
    std_ptr,
    warp_ptr,
    dz_ptr,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    height,
    width,
    WARP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    picture, first_row, first_column = _tile(height, width, BLOCK_H, BLOCK_W)
    row = (first_row + tl.arange(0, BLOCK_H)[:, None]).to(tl.int64)
    column = (first_column + tl.arange(0, BLOCK_W)[None, :]).to(tl.int64)
    mask = (row < height) & (column < width)
    g_ptr += picture * stride_b
    stride_c = tl.cast(stride_c, tl.int64)
    if WARP == "affine":
        g = _unwarp(
            g_ptr,
            warp_ptr,
            picture,
            first_row,
            first_column,
            stride_c,
            stride_h,
            stride_w,
            height,
            width,
            C,
            BLOCK_H,
            BLOCK_W,
        )
    else:
        to_row, to_column = row, column
        if WARP == "jitter":
            to_row = _roll(row, -(tl.load(warp_ptr + 2 * picture) % height), height)
            to_column = _roll(column, -(tl.load(warp_ptr + 2 * picture + 1) % width), width)
        g = ()
        for c in tl.static_range(C):
            at = g_ptr + c * stride_c + to_row * stride_h + to_column * stride_w
            g += (tl.load(at, mask=mask, other=0.0).to(tl.float32),)

    plane = tl.cast(height, tl.int64) * width
    offset = row * width + column
    s = _picture(z_ptr + picture * C * plane, color_ptr, offset, plane, mask, C)
    for j in tl.static_range(C):
        dz = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
        for i in tl.static_range(C):
            slope = s[i] * (1.0 - s[i]) / tl.load(std_ptr + i)
            dz += tl.load(color_ptr + (i * C + j)) * (slope * g[i])
        tl.store(dz_ptr + (picture * C + j) * plane + offset, dz, mask=mask)


def _kind(warp: Tensor | None) -> str:
    if warp is None:
        return "none"
    return "jitter" if warp.ndim == 2 else "affine"


def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Computes x = cast((warp(sigmoid(color @ z)) - mean) / std)."""
    x = torch.empty(z.shape, dtype=dtype, device=z.device, memory_format=torch.channels_last)
    batch, channels, height, width = z.shape
    choice = configuration("render", z.device)
    tiles = triton.cdiv(height, choice["BLOCK_H"]) * triton.cdiv(width, choice["BLOCK_W"])
    with on(z.device):
        _render_kernel[(batch * tiles,)](
            z,
            color.contiguous(),
            mean.contiguous(),
            std.contiguous(),
            None if warp is None else warp.contiguous(),
            x,
            height,
            width,
            WARP=_kind(warp),
            C=channels,
            **choice,
        )
    return x


def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Computes dz = color^T @ (s (1 - s) warp^T(g / std)) with s = sigmoid(color @ z)."""
    dz = torch.empty_like(z)
    batch, channels, height, width = z.shape
    choice = configuration("render_backward", z.device)
    tiles = triton.cdiv(height, choice["BLOCK_H"]) * triton.cdiv(width, choice["BLOCK_W"])
    with on(z.device):
        _render_backward_kernel[(batch * tiles,)](
            g,
            z,
            color.contiguous(),
            std.contiguous(),
            None if warp is None else warp.contiguous(),
            dz,
            *g.stride(),
            height,
            width,
            WARP=_kind(warp),
            C=channels,
            **choice,
        )
    return dz
