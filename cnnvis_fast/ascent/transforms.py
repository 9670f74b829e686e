"""Draws random transforms before the loop, as the tensors that `kernels.ops` takes as its `warp`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..randomness import uniforms

DRAWS_PER_WARP = 4
"""Random numbers of one affine transform: rotation, zoom, two shifts."""


def affine_matrices(draws: np.ndarray, rotate: float, zoom: float, shift: float) -> Tensor:
    """Maps draws to matrices from output to input coordinates, float32 [..., 2, 3].

    Args:
        draws: uniform numbers in [0, 1), [..., 4].
        rotate: largest turn in degrees.
        zoom: largest relative change of scale.
        shift: largest shift as a share of the size.
    """
    turn, scale, down, right = np.moveaxis(2 * draws - 1, -1, 0)
    angle = np.deg2rad(rotate) * turn
    factor = 1 + zoom * scale
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    # Coordinates run over [-1, 1], so a share of the size is doubled.
    rows = [[cosine, -sine, 2 * shift * right], [sine, cosine, 2 * shift * down]]
    return torch.from_numpy(np.stack([np.stack(row, -1) for row in rows], -2)).float()


def warp_table(config: Config, keys: Sequence[str], size: int) -> list[Tensor | None]:
    """Returns the warp of every step for a batch of pictures.

    Args:
        config: its `transforms`, `rotate`, `zoom`, `shift`, `crop`, `pad` and `steps` are read.
        keys: one per picture; the numbers of step t are the t-th block of the key's stream.
        size: side of the picture in pixels.

    Returns:
        A list over steps: None, int64 [B, 2] (jitter) or float32 [B, 2, 3] (affine).
    """
    if config.transforms == "none":
        return [None] * config.steps
    streams = [uniforms(f"{key}/warp", DRAWS_PER_WARP * config.steps) for key in keys]
    draws = np.stack([stream.reshape(config.steps, DRAWS_PER_WARP) for stream in streams], axis=1)
    if config.transforms == "jitter":
        reach = round(config.shift * size)
        pixels = np.floor(draws[..., 2:] * (2 * reach + 1)).astype(np.int64) - reach
        return list(torch.from_numpy(pixels).unbind(0))
    matrices = affine_matrices(draws, config.rotate, config.zoom, config.shift)
    if config.crop < 1:
        matrices = _cropped(matrices, config, keys)
    return [t.contiguous() for t in (matrices * (1 + 2 * config.pad)).unbind(0)]


def _cropped(matrices: Tensor, config: Config, keys: Sequence[str]) -> Tensor:
    """Returns transforms [steps, B, 2, 3] that show a random square, with a side from `crop` to 1."""
    streams = [uniforms(f"{key}/crop", 3 * config.steps) for key in keys]
    draws = np.stack([stream.reshape(config.steps, 3) for stream in streams], axis=1)
    side = config.crop + (1 - config.crop) * draws[..., :1]
    middle = torch.from_numpy((2 * draws[..., 1:] - 1) * (1 - side)).float()
    cropped = matrices * torch.from_numpy(side[..., None]).float()
    cropped[..., 2] += middle
    return cropped


def noise_table(config: Config, keys: Sequence[str]) -> list[Tensor | None]:
    """Returns for each step the seeds of the input noise, int64 [B] below 2^32; None without noise."""
    if not config.input_noise:
        return [None] * config.steps
    draws = np.stack([uniforms(f"{key}/noise", config.steps) for key in keys], axis=1)
    return list(torch.from_numpy(np.floor(draws * 2**32).astype(np.int64)).unbind(0))


def inside(warp: Tensor, height: int, width: int) -> Tensor:
    """Returns where an affine warp reads the picture and not beyond its borders, bool [B, 1, H, W]."""
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
    """Returns standard normal numbers, a pure function of each picture's seed: float32 [B, *shape].

    They come from a 32-bit integer hash of position and seed (the xorshift-multiply mixer with Wellons'
    constants), transformed by the method of Box and Muller 1958.

    Args:
        seeds: int64 [B] below 2^32.
        shape: shape of one picture's noise.
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
    """Mixes 32 bits, stored in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)
