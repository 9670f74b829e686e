"""What every parameterization offers to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..config import Config
from ..errors import InputError
from ..images.statistics import Statistics
from ..kernels import ops


@dataclass(frozen=True)
class Canvas:
    """The picture that parameters become, and how the network reads it.

    Attributes:
        size: side of the picture in pixels.
        statistics: colors and magnitudes of natural photos.
        color: maps z to the logits of the picture's values, [C, C], on the device.
        mean: mean of the network's preprocessing, [C], on the device.
        std: standard deviation of the network's preprocessing, [C], on the device.
    """

    size: int
    statistics: Statistics
    color: Tensor
    mean: Tensor
    std: Tensor


class Parameterization:
    """What the ascent moves, first axis = pictures, and how it becomes a picture.

    z is the picture in decorrelated colors before the logistic function, [B, C, H, W].

    Attributes:
        name: the word for it in `Config.parameters`.
        has_z: whether there is a z. Without one, the network reads the parameters: no penalty pulls on them
            and the start photo of an objective is not used.
        encodes: whether `encode` finds the parameters of a photo.
        bands: for each parameter, the number of its ring of equal frequency; None where parameters have no
            frequency.
    """

    name: str
    has_z = True
    encodes = True
    bands: Tensor | None = None

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the parameterization that a configuration describes."""
        raise NotImplementedError

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws start parameters, float32, one row per key."""
        raise NotImplementedError

    def decode(self, p: Tensor) -> Tensor:
        """Maps parameters to z."""
        raise NotImplementedError

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Maps the gradient of z to the gradient of the parameters at p."""
        raise NotImplementedError

    def encode(self, z: Tensor) -> Tensor:
        """Returns the parameters whose picture is z, for photos that pictures start from.

        Raises:
            InputError: pictures of this parameterization cannot start from a photo.
        """
        raise InputError(f'`parameters` "{self.name}" cannot start from a photo: use "fourier"')

    def soften_(self, p: Tensor, radius: float) -> None:
        """Blurs in place with a Gaussian of standard deviation `radius` pixels.

        `Config` accepts `blur` only for parameterizations that have this.
        """
        raise NotImplementedError

    def render(self, z: Tensor, canvas: Canvas, warp: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Returns what the network reads of z under a transform, [B, C, H, W]."""
        return ops.render(z, canvas.color, canvas.mean, canvas.std, warp, dtype)

    def render_backward(self, g: Tensor, z: Tensor, canvas: Canvas, warp: Tensor | None) -> Tensor:
        """Maps the gradient of what the network reads to the gradient of z."""
        return ops.render_backward(g, z, canvas.color, canvas.std, warp)

    def pictures(self, p: Tensor, canvas: Canvas) -> Tensor:
        """Maps parameters to finished pictures, values in [0, 1], float32 [B, C, H, W]."""
        mean, std = torch.zeros_like(canvas.mean), torch.ones_like(canvas.std)
        return ops.render(self.decode(p), canvas.color, mean, std, None, torch.float32)
