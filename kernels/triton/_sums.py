"""`dot` and `restrain` (formulas in `ops.sums`), and the sums that they and `ascend_` share.

Pictures are rows of `count` numbers. A sum over a picture adds the sums of its chunks, always in the same
order; the order of atomic sums would be random. The chunk size determines the bits, so it is fixed here and
not a measured configuration.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import FUSED, configuration, on

SUMS = {"CHUNK": 2048, "num_warps": 8, **FUSED}


@triton.jit
def sum_of(values_ptr, count, BLOCK: tl.constexpr):
    """Returns the sum of an array, in an order that depends on `BLOCK` only."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        total += tl.load(values_ptr + index, mask=index < count, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def _products_kernel(a_ptr, b_ptr, sums_ptr, count, chunks, CHUNK: tl.constexpr):
    """Writes the sums of a times b over each chunk of each picture [B, chunks]."""
    program = tl.program_id(0)
    picture, chunk = (program // chunks).to(tl.int64), (program % chunks).to(tl.int64)
    index = chunk * CHUNK + tl.arange(0, CHUNK)
    offset, mask = picture * count + index, index < count
    a = tl.load(a_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(sums_ptr + program, tl.sum(a * b, axis=0))


@triton.jit
def _totals_kernel(sums_ptr, totals_ptr, chunks, CHUNK: tl.constexpr):
    """Adds up the chunks of each picture [B]."""
    picture = tl.program_id(0).to(tl.int64)
    tl.store(totals_ptr + picture, sum_of(sums_ptr + picture * chunks, chunks, CHUNK))


@triton.jit
def _restrain_kernel(
    dz_ptr,
    z_ptr,
    color_ptr,
    squares_ptr,
    out_ptr,
    plane,
    chunks,
    strength,
    limit,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes a block of pixels of one picture, with all their channels."""
    blocks = tl.cdiv(plane, BLOCK)
    program = tl.program_id(0)
    picture, block = (program // blocks).to(tl.int64), (program % blocks).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    offset, mask = picture * C * plane + index, index < plane
    total = sum_of(squares_ptr + picture * chunks, chunks, CHUNK)
    rms = tl.sqrt_rn(tl.div_rn(total, tl.cast(C * plane, tl.float32)))
    pull, limit = tl.cast(strength, tl.float32) * rms, tl.cast(limit, tl.float32)
    beyond = ()
    for i in tl.static_range(C):
        logit = tl.zeros((BLOCK,), tl.float32)
        for k in tl.static_range(C):
            z = tl.load(z_ptr + offset + k * plane, mask=mask, other=0.0)
            logit += tl.load(color_ptr + i * C + k) * z
        cut = tl.where(logit > limit, limit, tl.where(logit < -limit, -limit, logit))
        beyond += (logit - cut,)
    for k in tl.static_range(C):
        total = tl.zeros((BLOCK,), tl.float32)
        for i in tl.static_range(C):
            total += tl.load(color_ptr + i * C + k) * beyond[i]
        dz = tl.load(dz_ptr + offset + k * plane, mask=mask, other=0.0)
        tl.store(out_ptr + offset + k * plane, dz - pull * total, mask=mask)


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, int]:
    """Returns the sums of a times b over chunks, and the number of chunks per picture."""
    batch, count = len(a), a.numel() // len(a)
    chunks = triton.cdiv(count, SUMS["CHUNK"])
    made = a.new_empty(batch, chunks, dtype=torch.float32)
    _products_kernel[(batch * chunks,)](a, b, made, count, chunks, **SUMS)
    return made, chunks


def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Returns the sum of h times maps over each picture [B]."""
    kept = torch.channels_last if h.ndim == 4 else torch.contiguous_format
    h, maps = h.contiguous(memory_format=kept), maps.contiguous(memory_format=kept)
    totals = h.new_empty(len(h), dtype=torch.float32)
    with on(h.device):
        made, chunks = _products(h, maps)
        _totals_kernel[(len(h),)](made, totals, chunks, **SUMS)
    return totals


def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Computes dz - strength rms(dz) color^T (u - clamp(u)) with u = color @ z."""
    dz, out = dz.contiguous(), torch.empty_like(z)
    batch, channels, height, width = z.shape
    choice = configuration("restrain", z.device)
    with on(z.device):
        squares, chunks = _products(dz, dz)
        _restrain_kernel[(batch * triton.cdiv(height * width, choice["BLOCK"]),)](
            dz,
            z,
            color.contiguous(),
            squares,
            out,
            height * width,
            chunks,
            strength,
            limit,
            C=channels,
            CHUNK=SUMS["CHUNK"],
            **choice,
        )
    return out
