"""Pictures whose parameters are pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..randomness import normals, uniforms


class Normalized:
    """The parameters are the network's input itself, [B, C, H, W]: values in [0, 1] minus mean, over std.

    Neither colour nor logistic function nor warp stand between them and the network, so this is not for the
    ops that render: the loop hands p on as it is.
    """

    def __init__(self, size: int, mean: Tensor, std: Tensor) -> None:
        self.shape = (len(mean), size, size)
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.bands: Tensor | None = None

    def start(self, keys: Sequence[str]) -> Tensor:
        """Grey noise: whole numbers from 125 to 189 of 255, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        draws = torch.stack([torch.from_numpy(uniforms(f"{key}/start", count)) for key in keys])
        return self.normalized((125 + 65 * draws).floor().view(-1, *self.shape) / 255)

    def normalized(self, pictures: Tensor) -> Tensor:
        """Pictures in [0, 1] to parameters, float32."""
        return ((pictures.to(self.mean.device) - self.mean) / self.std).float()

    def pictures(self, p: Tensor) -> Tensor:
        """Parameters to pictures; what the ascent drove out of [0, 1] is left there."""
        return p * self.std + self.mean


class Pixel:
    """The parameters are z itself, [B, C, H, W]."""

    def __init__(self, channels: int, size: int, noise: float) -> None:
        self.shape = (channels, size, size)
        self.noise = noise
        self.bands: Tensor | None = None

    def start(self, keys: Sequence[str]) -> Tensor:
        """Normal noise, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        numbers = [torch.from_numpy(normals(f"{key}/start", count)).float() for key in keys]
        return torch.stack(numbers).view(-1, *self.shape) * self.noise

    def decode(self, p: Tensor) -> Tensor:
        """Parameters to z."""
        return p

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Gradient of z to gradient of the parameters."""
        return dz

    def encode(self, z: Tensor) -> Tensor:
        """The parameters of a picture."""
        return z

    def soften_(self, p: Tensor, radius: float) -> None:
        """Blurs with a Gaussian of so many pixels' standard deviation, in place; borders are reflected."""
        reach = max(1, min(math.ceil(3 * radius), self.shape[1] - 1))
        offsets = torch.arange(-reach, reach + 1, device=p.device, dtype=p.dtype)
        bell = torch.exp(-offsets.square() / (2 * radius**2))
        bell = (bell / bell.sum()).expand(self.shape[0], 1, -1)
        wide = pad(p, (reach, reach, reach, reach), mode="reflect")
        rows = conv2d(wide, bell[..., None], groups=self.shape[0])
        p.copy_(conv2d(rows, bell[:, :, None], groups=self.shape[0]))
