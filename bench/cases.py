"""Cases of the benchmarks, written MODEL/LAYER."""

from __future__ import annotations

from torch import nn

import cnnvis_fast as cv


def opened(case: str) -> tuple[nn.Module, str]:
    """Network and layer. Weights are random, since speed does not see them, but for those that ship."""
    name, layer = case.split("/")
    return cv.load_model(name, "DEFAULT" if name == "texturenet" else None), layer
