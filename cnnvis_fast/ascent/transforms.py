"""Random transforms, drawn ahead of the loop as tensors that `kernels.ops` takes as its `warp`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..randomness import uniforms

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
    matrices = _affine(draws, config.rotate, config.zoom, config.shift)
    if config.crop < 1:
        matrices = _cropped(matrices, config, keys)
    return [t.contiguous() for t in (matrices * (1 + 2 * config.pad)).unbind(0)]


def _cropped(matrices: Tensor, config: Config, keys: Sequence[str]) -> Tensor:
    """Transforms [steps, B, 2, 3] of random squares, side from `crop` to 1, instead of the whole."""
    streams = [uniforms(f"{key}/crop", 3 * config.steps) for key in keys]
    draws = np.stack([stream.reshape(config.steps, 3) for stream in streams], axis=1)
    side = config.crop + (1 - config.crop) * draws[..., :1]
    middle = torch.from_numpy((2 * draws[..., 1:] - 1) * (1 - side)).float()
    cropped = matrices * torch.from_numpy(side[..., None]).float()
    cropped[..., 2] += middle
    return cropped


def noise_table(config: Config, keys: Sequence[str]) -> list[Tensor | None]:
    """Per step the seeds of the noise on the network's input, int64 [B] below 2^32; None without noise."""
    if not config.input_noise:
        return [None] * config.steps
    draws = np.stack([uniforms(f"{key}/noise", config.steps) for key in keys], axis=1)
    return list(torch.from_numpy(np.floor(draws * 2**32).astype(np.int64)).unbind(0))


def inside(warp: Tensor, height: int, width: int) -> Tensor:
    """Where an affine warp looks at the picture rather than beyond its borders, bool [B, 1, H, W]."""
    down = (2 * torch.arange(height, device=warp.device) + 1) / height - 1
    right = (2 * torch.arange(width, device=warp.device) + 1) / width - 1
    rows = (
        warp[:, :, 0, None, None] * right
        + warp[:, :, 1, None, None] * down[:, None]
        + warp[:, :, 2, None, None]
    )
    return (rows.abs() <= 1).all(1, keepdim=True)


_WORD = 0xFFFFFFFF


def normal_noise(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, a pure function of each picture's seed: float32 [B, *shape].

    A 32-bit integer hash of position and seed (the xorshift-multiply mixer with Wellons' constants), then Box
    and Muller 1958.

    Args:
        seeds: int64 [B] below 2^32.
        shape: of one picture's noise.
    """
    count = 1
    for n in shape:
        count *= n
    half = (count + 1) // 2
    places = torch.arange(half, device=seeds.device)
    first = _hashed(_hashed(places) ^ seeds[:, None])
    second = _hashed(first ^ 0x9E3779B9)
    radius = (-2 * ((first + 0.5) / 2**32).double().log()).sqrt().float()
    angle = (2 * torch.pi / 2**32) * second
    pairs = torch.cat((radius * angle.cos(), radius * angle.sin()), 1)
    return pairs[:, :count].reshape(-1, *shape).float()


def _hashed(x: Tensor) -> Tensor:
    """Mixes 32 bits, held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def robust_warps() -> Tensor:
    """The fixed transforms of the robust score, float32 [16, 2, 3].

    Uniform within 10 degrees, 10 % of scale and 8 pixels at 224, with reflection: the same for every
    picture, network and seed.
    """
    draws = uniforms("robust score", ROBUST_DRAWS * _PER_STEP).reshape(ROBUST_DRAWS, _PER_STEP)
    return _affine(draws, rotate=10.0, zoom=0.1, shift=8 / 224)
