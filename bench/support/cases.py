"""Cases of the benchmarks, written MODEL/LAYER."""

from __future__ import annotations

from torch import nn

import cnnvis_fast as cv


def opened(case: str, weights: str | None = None) -> tuple[nn.Module, str]:
    """Returns network and layer; without a file, weights are those shipped or random: speed is the same."""
    name, layer = case.split("/")
    return cv.load_model(name, weights or ("DEFAULT" if name == "texturenet" else None)), layer
