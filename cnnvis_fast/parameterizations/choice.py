"""Chooses a parameterization by the configuration."""

from __future__ import annotations

from torch import Tensor

from ..config import Config
from ..images.statistics import Statistics
from .cppn import Cppn
from .fourier import Fourier, Phase
from .pixels import Normalized, Pixel

Parameters = Fourier | Phase | Cppn | Pixel | Normalized


def _parameters(config: Config, size: int, statistics: Statistics, mean: Tensor, std: Tensor) -> Parameters:
    channels, device = len(mean), mean.device
    if config.parameters == "normalized":
        return Normalized(size, mean, std)
    if config.parameters == "pixel":
        return Pixel(channels, size, config.noise)
    if config.parameters == "maco":
        return Phase(statistics.magnitude_at(size), device)
    if config.parameters == "cppn":
        return Cppn(channels, size, config.noise, device)
    noise, decay = config.noise, config.decay
    # A ring in cycles per pixel holds coefficients in proportion to the area: this keeps its contrast.
    amplitude = config.amplitude * (size / 224) ** (decay - 1)
    return Fourier(channels, size, noise, decay, amplitude, device, config.corner, config.cutoff)
