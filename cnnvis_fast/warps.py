"""Random transforms, drawn ahead of the loop as tensors that `kernels.ops` takes as its `warp`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .config import Config
from .randomness import uniforms

ROBUST_DRAWS = 16
"""Transforms that the robust score is averaged over."""
_PER_STEP = 4  # random numbers of a step: rotation, zoom, two shifts


def _affine(draws: np.ndarray, rotate: float, zoom: float, shift: float) -> Tensor:
    """Uniform draws [..., 4] in [0, 1) to matrices float32 [..., 2, 3], output to input coordinates."""
    turn, scale, down, right = np.moveaxis(2 * draws - 1, -1, 0)
    angle = np.deg2rad(rotate) * turn
    factor = 1 + zoom * scale
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    # Coordinates run over [-1, 1], so a share of the size counts twice.
    rows = [[cosine, -sine, 2 * shift * right], [sine, cosine, 2 * shift * down]]
    return torch.from_numpy(np.stack([np.stack(row, -1) for row in rows], -2)).float()


def warp_table(config: Config, keys: Sequence[str], size: int) -> list[Tensor | None]:
    """The warp of every step for a batch of pictures.

    Args:
        config: `transforms`, `rotate`, `zoom`, `shift` and `steps` are read.
        keys: one per picture; numbers of step t are the t-th block of the key's stream.
        size: side of the picture in pixels.

    Returns:
        A list over steps: None, int64 [B, 2] (jitter) or float32 [B, 2, 3] (affine).
    """
    if config.transforms == "none":
        return [None] * config.steps
    streams = [uniforms(f"{key}/warp", _PER_STEP * config.steps) for key in keys]
    draws = np.stack([stream.reshape(config.steps, _PER_STEP) for stream in streams], axis=1)
    if config.transforms == "jitter":
        reach = round(config.shift * size)
        pixels = np.floor(draws[..., 2:] * (2 * reach + 1)).astype(np.int64) - reach
        return list(torch.from_numpy(pixels).unbind(0))
    return [t.contiguous() for t in _affine(draws, config.rotate, config.zoom, config.shift).unbind(0)]


def robust_warps() -> Tensor:
    """The fixed transforms of the robust score, float32 [16, 2, 3].

    Uniform within 10 degrees, 10 % of scale and 8 pixels at 224, with reflection: the same for every
    picture, network and seed.
    """
    draws = uniforms("robust score", ROBUST_DRAWS * _PER_STEP).reshape(ROBUST_DRAWS, _PER_STEP)
    return _affine(draws, rotate=10.0, zoom=0.1, shift=8 / 224)
