"""Chooses the parameterization that a configuration names."""

from __future__ import annotations

from ..config import Config
from .cppn import Cppn
from .fourier import Fourier, Phase
from .parameterization import Canvas, Parameterization
from .pixels import Normalized, Pixel

_CLASSES: tuple[type[Parameterization], ...] = (Fourier, Phase, Cppn, Pixel, Normalized)
PARAMETERIZATIONS = {kind.name: kind for kind in _CLASSES}
"""Every parameterization by the word for it in `Config.parameters`."""


def make_parameterization(config: Config, canvas: Canvas) -> Parameterization:
    """Makes the parameterization of a configuration's pictures."""
    return PARAMETERIZATIONS[config.parameters].make(config, canvas)
