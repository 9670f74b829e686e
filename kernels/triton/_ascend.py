"""`ascend_`: one pass over the gradient for its statistics, and one over all tensors for the update.

    g = dp - weight_decay p,   m <- m + (1 - beta1) (g - m),   v <- v + (1 - beta2) (<g^2> - v)
    p <- p + rate c1 m / (sqrt(c2 v) + epsilon)                          momentum: see `ops.ascend_`

Pictures are rows of `count` contiguous numbers. The first kernel sums squares over chunks of a row. Every
program of the last kernel adds up the chunks of its picture, always in the same order, and updates a block.

No program writes what another program of the same launch reads, so the first kernel copies a second moment
per picture. Between the two, another kernel computes band means, with one program for each band of each
picture. It reads the band's coefficients in the order of one stable sort of the band table. Atomic sums would
need no sort, but their order is random.

The chunk size determines the bits of the sums, so it is fixed in `_sums` and not a measured configuration.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..second_moment import second_moment_of
from ._launch import configuration, on
from ._sums import SUMS, sum_of


@triton.jit
def _gradient(dp_ptr, p_ptr, offset, mask, weight_decay, DECAY: tl.constexpr):
    """Returns g = dp - weight_decay p, with zeros outside the mask."""
    g = tl.load(dp_ptr + offset, mask=mask, other=0.0)
    if DECAY:
        g -= tl.cast(weight_decay, tl.float32) * tl.load(p_ptr + offset, mask=mask, other=0.0)
    return g


@triton.jit
def _squares_kernel(
    dp_ptr,
    p_ptr,
    v_ptr,
    energies_ptr,
    squares_ptr,
    before_ptr,
    count,
    chunks,
    weight_decay,
    DECAY: tl.constexpr,
    KEEP: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Writes the sums of dp^2 and, with decay, of g^2 over each chunk of each picture [B, chunks]."""
    program = tl.program_id(0)
    picture, chunk = (program // chunks).to(tl.int64), (program % chunks).to(tl.int64)
    index = chunk * CHUNK + tl.arange(0, CHUNK)
    offset, mask = picture * count + index, index < count
    dp = tl.load(dp_ptr + offset, mask=mask, other=0.0)
    tl.store(energies_ptr + program, tl.sum(dp * dp, axis=0))
    if DECAY:
        g = _gradient(dp_ptr, p_ptr, offset, mask, weight_decay, DECAY)
        tl.store(squares_ptr + program, tl.sum(g * g, axis=0))
    if KEEP:
        tl.store(before_ptr + picture, tl.load(v_ptr + picture), mask=chunk == 0)


@triton.jit
def _bands_kernel(
    dp_ptr,
    p_ptr,
    v_ptr,
    energies_ptr,
    order_ptr,
    edges_ptr,
    count,
    chunks,
    bands,
    weight_decay,
    take2,
    DECAY: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Updates the second moment of each band of each picture.

    order[edges[k] : edges[k + 1]] are the coefficients of band k.
    """
    program = tl.program_id(0)
    picture, band = (program // bands).to(tl.int64), program % bands
    first, end = tl.load(edges_ptr + band), tl.load(edges_ptr + band + 1)
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(first, end, CHUNK):
        index = start + tl.arange(0, CHUNK)
        mask = index < end
        offset = picture * count + tl.load(order_ptr + index, mask=mask, other=0)
        g = _gradient(dp_ptr, p_ptr, offset, mask, weight_decay, DECAY)
        total += g * g
    # An empty band has a mean of 0.
    mean = tl.div_rn(tl.sum(total, axis=0), tl.maximum(end - first, 1).to(tl.float32))
    energy = sum_of(energies_ptr + picture * chunks, chunks, CHUNK)
    v = tl.load(v_ptr + program)
    tl.store(v_ptr + program, v + tl.cast(take2, tl.float32) * (mean - v), mask=energy < float("inf"))


@triton.jit
def _ascend_kernel(
    p_ptr,
    m_ptr,
    v_ptr,
    dp_ptr,
    schedule_ptr,
    band_ptr,
    energies_ptr,
    squares_ptr,
    before_ptr,
    energy_ptr,
    count,
    chunks,
    bands,
    beta1,
    take1,
    take2,
    epsilon,
    weight_decay,
    SECOND: tl.constexpr,
    DECAY: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Updates one block of one picture; a picture's first block also writes the values per picture."""
    blocks = tl.cdiv(count, BLOCK)
    program = tl.program_id(0)
    picture, block = (program // blocks).to(tl.int64), (program % blocks).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    offset = picture * count + index
    take1, take2, epsilon = (
        tl.cast(take1, tl.float32),
        tl.cast(take2, tl.float32),
        tl.cast(epsilon, tl.float32),
    )
    rate = tl.load(schedule_ptr + 3 * picture)
    debias1, debias2 = tl.load(schedule_ptr + 3 * picture + 1), tl.load(schedule_ptr + 3 * picture + 2)

    energy = tl.div_rn(sum_of(energies_ptr + picture * chunks, chunks, CHUNK), tl.cast(count, tl.float32))
    tl.store(energy_ptr + picture, energy, mask=block == 0)
    is_finite = energy < float("inf")
    mask = index < tl.where(is_finite, count, 0)
    square = energy
    if DECAY and (SECOND == "image" or SECOND == "none"):
        square = tl.div_rn(sum_of(squares_ptr + picture * chunks, chunks, CHUNK), tl.cast(count, tl.float32))

    g = _gradient(dp_ptr, p_ptr, offset, mask, weight_decay, DECAY)
    p = tl.load(p_ptr + offset, mask=mask, other=0.0)
    m = tl.load(m_ptr + offset, mask=mask, other=0.0)
    if SECOND == "none":
        m = tl.cast(beta1, tl.float32) * m + tl.div_rn(g, tl.sqrt_rn(square) + epsilon)
        p += rate * m
    else:
        m += take1 * (g - m)
        if SECOND == "coefficient":
            v = tl.load(v_ptr + offset, mask=mask, other=0.0)
            v += take2 * (g * g - v)
            tl.store(v_ptr + offset, v, mask=mask)
        elif SECOND == "band":
            v = tl.load(
                v_ptr + picture * bands + tl.load(band_ptr + index, mask=mask, other=0), mask=mask, other=0.0
            )
        else:
            v = tl.load(before_ptr + picture)
            v += take2 * (square - v)
            tl.store(v_ptr + picture, v, mask=is_finite & (block == 0))
        p += tl.div_rn(rate * debias1 * m, tl.sqrt_rn(v * debias2) + epsilon)
    tl.store(m_ptr + offset, m, mask=mask)
    tl.store(p_ptr + offset, p, mask=mask)


def _sorted(band: Tensor, bands: int) -> tuple[Tensor, Tensor]:
    """Returns the coefficients sorted by band, and where each band begins and the last one ends."""
    # Radix sort reads fewer bytes if the keys are small.
    keys = band.flatten().to(torch.int16 if bands < 2**15 else torch.int64)
    keys, order = torch.sort(keys, stable=True)
    return order, torch.searchsorted(keys, torch.arange(bands + 1, dtype=keys.dtype, device=keys.device))


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
    """Takes one step of ascent in place; returns the mean square of the gradient per picture [B]."""
    dp, schedule = dp.contiguous(), schedule.contiguous()
    second, decay = second_moment_of(p, v, band), weight_decay != 0
    batch, count = len(p), p[0].numel()
    chunks = triton.cdiv(count, SUMS["CHUNK"])
    energies = p.new_empty(batch, chunks)
    squares = torch.empty_like(energies) if decay else None
    before = torch.empty_like(v) if v is not None and second == "image" else None
    energy = p.new_empty(batch)
    bands = v.shape[1] if v is not None and second == "band" else 0
    # Subtract in double precision; the kernels round to float32.
    take1, take2 = 1 - beta1, 1 - beta2
    with on(p.device):
        _squares_kernel[(batch * chunks,)](
            dp,
            p,
            v,
            energies,
            squares,
            before,
            count,
            chunks,
            weight_decay,
            DECAY=decay,
            KEEP=second == "image",
            **SUMS,
        )
        if band is not None:
            band = band.contiguous()
            _bands_kernel[(batch * bands,)](
                dp,
                p,
                v,
                energies,
                *_sorted(band, bands),
                count,
                chunks,
                bands,
                weight_decay,
                take2,
                DECAY=decay,
                **SUMS,
            )
        choice = configuration("ascend_", p.device)
        _ascend_kernel[(batch * triton.cdiv(count, choice["BLOCK"]),)](
            p,
            m,
            v,
            dp,
            schedule,
            band,
            energies,
            squares,
            before,
            energy,
            count,
            chunks,
            bands,
            beta1,
            take1,
            take2,
            epsilon,
            weight_decay,
            SECOND=second,
            DECAY=decay,
            CHUNK=SUMS["CHUNK"],
            **choice,
        )
    return energy
