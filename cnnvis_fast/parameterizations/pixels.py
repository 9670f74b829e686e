"""Pictures whose parameters are pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..config import Config
from ..randomness import normals, uniforms
from .parameterization import Canvas, Parameterization


class Normalized(Parameterization):
    """The network's input itself, [B, C, H, W]: (values in [0, 1] - mean) / std.

    The network reads the parameters without color matrix, logistic function or transform, so nothing is
    rendered. Its methods take z and p for the same tensor.
    """

    name = "normalized"
    has_z = False
    encodes = False

    def __init__(self, size: int, mean: Tensor, std: Tensor) -> None:
        self.shape = (len(mean), size, size)
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the inputs for the pictures of a configuration."""
        return cls(canvas.size, canvas.mean, canvas.std)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws gray noise: whole numbers from 125 to 189 of 255, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        draws = torch.stack([torch.from_numpy(uniforms(f"{key}/start", count)) for key in keys])
        return self.normalized((125 + 65 * draws).floor().view(-1, *self.shape) / 255)

    def normalized(self, pictures: Tensor) -> Tensor:
        """Maps pictures in [0, 1] to parameters, float32."""
        return ((pictures.to(self.mean.device) - self.mean) / self.std).float()

    def unclamped(self, p: Tensor) -> Tensor:
        """Maps parameters to pictures; values that the ascent drove out of [0, 1] stay outside."""
        return p * self.std + self.mean

    def decode(self, p: Tensor) -> Tensor:
        """Returns the parameters."""
        return p

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Returns the gradient unchanged."""
        return dz

    def render(self, z: Tensor, canvas: Canvas, warp: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Returns the parameters in the network's dtype."""
        return z.to(dtype, memory_format=torch.channels_last)

    def render_backward(self, g: Tensor, z: Tensor, canvas: Canvas, warp: Tensor | None) -> Tensor:
        """Returns the gradient in the dtype of the parameters."""
        return g.to(z.dtype)

    def pictures(self, p: Tensor, canvas: Canvas) -> Tensor:
        """Maps parameters to finished pictures, values in [0, 1], float32 [B, C, H, W]."""
        return self.unclamped(p).clamp(0, 1)


class Pixel(Parameterization):
    """z itself, [B, C, H, W]."""

    name = "pixel"

    def __init__(self, channels: int, size: int, noise: float) -> None:
        self.shape = (channels, size, size)
        self.noise = noise

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the pixels for the pictures of a configuration."""
        return cls(len(canvas.mean), canvas.size, config.noise)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws normal noise, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        numbers = [torch.from_numpy(normals(f"{key}/start", count)).float() for key in keys]
        return torch.stack(numbers).view(-1, *self.shape) * self.noise

    def decode(self, p: Tensor) -> Tensor:
        """Returns the parameters, which are z."""
        return p

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Returns the gradient of z, which is that of the parameters."""
        return dz

    def encode(self, z: Tensor) -> Tensor:
        """Returns z, which is the parameters."""
        return z

    def soften_(self, p: Tensor, radius: float) -> None:
        """Blurs in place with a Gaussian of standard deviation `radius` pixels; borders are reflected."""
        reach = max(1, min(math.ceil(3 * radius), self.shape[1] - 1))
        offsets = torch.arange(-reach, reach + 1, device=p.device, dtype=p.dtype)
        bell = torch.exp(-offsets.square() / (2 * radius**2))
        bell = (bell / bell.sum()).expand(self.shape[0], 1, -1)
        wide = pad(p, (reach, reach, reach, reach), mode="reflect")
        rows = conv2d(wide, bell[..., None], groups=self.shape[0])
        p.copy_(conv2d(rows, bell[:, :, None], groups=self.shape[0]))
