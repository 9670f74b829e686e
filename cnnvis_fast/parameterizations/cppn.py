"""A picture as a small network from coordinates to colors (Stanley 2007; Mordvintsev et al. 2018).

Such a picture is smooth at any size. The ascent moves the weights of the network, one network per picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..config import Config
from ..randomness import normals
from .parameterization import Canvas, Parameterization

_HIDDEN, _LAYERS = 24, 8
# Mean of atan(x)^2 and the standard deviations of atan(x) and atan(x)^2 for normal x (averages over 2e7
# numbers).
_MEAN, _SPREAD, _SQUARE_SPREAD = 0.4495, 0.6705, 0.3961


class Cppn(Parameterization):
    """All weights and biases of the networks, [B, P].

    Each of the eight hidden layers has 24 units and passes on atan(h) and atan(h)^2, normalized to mean 0 and
    variance 1. Coordinates run over [-sqrt(3), sqrt(3)] (variance 1) down and right. The output is z.
    """

    name = "cppn"
    encodes = False

    def __init__(self, channels: int, size: int, noise: float, device: torch.device) -> None:
        self.channels, self.size, self.noise = channels, size, noise
        axis = torch.linspace(-math.sqrt(3), math.sqrt(3), size, device=device)
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        self.coordinates = torch.stack((columns, rows), -1).view(-1, 2)
        widths = [2, *[_HIDDEN] * _LAYERS, channels]
        fed = [widths[0], *[2 * width for width in widths[1:-1]]]
        self.layers = list(zip(fed, widths[1:], strict=True))
        self.count = sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the networks for the pictures of a configuration."""
        return cls(len(canvas.mean), canvas.size, config.noise, canvas.mean.device)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws normal weights, [B, P], and sets biases to 0.

        The standard deviation is `noise` / sqrt(inputs), in the last layer a tenth of that.
        """
        rows = [torch.from_numpy(normals(f"{key}/start", self.count)).float() for key in keys]
        scales = []
        for number, (inputs, outputs) in enumerate(self.layers, 1):
            scale = self.noise * (0.1 if number == len(self.layers) else 1.0) / math.sqrt(inputs)
            scales += [torch.full((inputs * outputs,), scale), torch.zeros(outputs)]
        return torch.stack(rows) * torch.cat(scales)

    def decode(self, p: Tensor) -> Tensor:
        """Maps parameters to z [B, C, H, W]."""
        h = self.coordinates.to(p.dtype).expand(len(p), -1, -1)
        first = 0
        for number, (inputs, outputs) in enumerate(self.layers, 1):
            weight = p[:, first : first + inputs * outputs].view(-1, inputs, outputs)
            bias = p[:, first + inputs * outputs : first + (inputs + 1) * outputs]
            first += (inputs + 1) * outputs
            h = torch.bmm(h, weight) + bias[:, None]
            if number < len(self.layers):
                bent = h.atan()
                h = torch.cat((bent / _SPREAD, (bent.square() - _MEAN) / _SQUARE_SPREAD), -1)
        return h.transpose(1, 2).reshape(len(p), self.channels, self.size, self.size).contiguous()

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Maps the gradient of z to the gradient of the parameters."""
        found: Any = torch.func.vjp(self.decode, p)  # Any: the stubs of vjp allow more than a pair
        (dp,) = found[1](dz)
        return dp.contiguous()
