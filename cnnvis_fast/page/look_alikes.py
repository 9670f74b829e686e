"""Finds pictures of a layer that look alike, by colors and spectrum, wherever a motif is."""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE, _LEVELS, _RINGS, _DIRECTIONS = 64, 4, 6, 8


def descriptor(picture: Image.Image) -> np.ndarray:
    """Returns two distributions of a picture: of its colors, in 4 x 4 x 4 bins, and of its power.

    The power is that of the gray picture at 64 pixels, over 6 rings of frequency and 8 directions, so moving
    a motif changes nothing. Square roots are stored: the product of two is the Bhattacharyya coefficient.

    Returns:
        float32 [112], of length 1.
    """
    pixels = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    levels = pixels // (256 // _LEVELS)
    colors = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    gray = pixels.astype(np.float64).mean(2)
    power = np.abs(np.fft.fft2(gray - gray.mean())) ** 2
    shares = [
        np.bincount(colors.ravel(), minlength=_LEVELS**3).astype(np.float64),
        np.bincount(_bins().ravel(), power.ravel(), minlength=_RINGS * _DIRECTIONS),
    ]
    roots = [np.sqrt(share / max(share.sum(), 1e-12) / 2) for share in shares]
    return np.concatenate(roots).astype(np.float32)


def most_alike(descriptors: np.ndarray, count: int = 8) -> list[list[int]]:
    """Returns, for every row of [N, D], the rows most like it, best first; ties keep their order."""
    likeness = (descriptors.astype(np.float64) @ descriptors.T.astype(np.float64)).round(6)
    np.fill_diagonal(likeness, -np.inf)
    order = np.argsort(-likeness, axis=1, kind="stable")
    return [list(map(int, row[: min(count, len(row) - 1)])) for row in order]


def _bins() -> np.ndarray:
    """Returns the bin of ring and direction of every frequency, int [64, 64]."""
    down, right = np.meshgrid(*[np.fft.fftfreq(_SIDE) * _SIDE] * 2, indexing="ij")
    radius = np.hypot(down, right)
    ring = np.clip(np.floor(np.log2(np.maximum(radius, 1))), 0, _RINGS - 1)
    direction = np.floor((np.arctan2(down, right) % np.pi) / np.pi * _DIRECTIONS) % _DIRECTIONS
    return (ring * _DIRECTIONS + direction).astype(np.int64)
