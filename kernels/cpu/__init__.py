"""Kernels compiled from C++ for the CPU: float32 pictures of up to four channels, networks in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

from .extension import MOST_CHANNELS, build_info, levels, multiplies_bfloat16, why_unavailable
from .rectify import Network
from .render import Pictures
from .stem import Convolutions
from .winograd import Products

__all__ = ["MOST_CHANNELS", "Kernels", "build_info", "levels", "multiplies_bfloat16", "why_unavailable"]


@dataclass(frozen=True)
class Kernels(Pictures, Network, Convolutions, Products):
    """All ops for one instruction set."""
