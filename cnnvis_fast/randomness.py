"""Draws counter-based random numbers: a stream is a pure function of its key, not of what else ran.

The generator is Philox4x64-10 (Salmon et al. 2011) on a key hashed from text. Only its raw output is used,
whose stream NumPy guarantees; the distributions are computed here.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def uniforms(key: str, count: int) -> NDArray[np.float64]:
    """Returns `count` numbers in [0, 1) with 53 random bits; the first n do not depend on `count`."""
    digest = hashlib.sha256(key.encode()).digest()
    generator = np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64))
    raw: NDArray[np.uint64] = generator.random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(key: str, count: int) -> NDArray[np.float64]:
    """Returns `count` standard normal numbers (Box and Muller 1958)."""
    half = (count + 1) // 2
    pairs = uniforms(key, 2 * half).reshape(half, 2)
    radius = np.sqrt(-2 * np.log1p(-pairs[:, 0]))
    angle = 2 * np.pi * pairs[:, 1]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)[:count]
