"""See what the filters of a convolutional network look for, a whole layer at a time.

import cnnvis_fast as cv

pictures = cv.maximize("texturenet", "conv5", filters=range(16))
pictures.sheet().save("sheet.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import objectives
    from .errors import InputError
    from .images.photos import noise_image
    from .inspection.activation_maps import ActivationMaps, activation_maps, chained_convolutions
    from .inspection.filter_weights import Grid, filter_weights
    from .inspection.natural_statistics import measure_statistics
    from .inspection.onnx.check import check_onnx
    from .inspection.onnx.report import OnnxReport
    from .inspection.top_patches import Patches, top_patches
    from .jobs.atlas import Atlas, atlas
    from .jobs.maximize import maximize
    from .networks.listing import Layer, LayerTable, layers
    from .networks.load import load_model
    from .page import gallery
    from .results.diagnostics import Report
    from .results.pictures import Pictures

__version__: str  # read from the installation on first use, which takes longer than all else here

# The module of each public name. It is imported on first use, because torch takes seconds to load and
# neither `cnnvis-fast --help` nor shell completion needs it.
_MODULE_OF = {
    "ActivationMaps": "inspection.activation_maps",
    "Atlas": "jobs.atlas",
    "Grid": "inspection.filter_weights",
    "InputError": "errors",
    "Layer": "networks.listing",
    "LayerTable": "networks.listing",
    "OnnxReport": "inspection.onnx.report",
    "Patches": "inspection.top_patches",
    "Pictures": "results.pictures",
    "Report": "results.diagnostics",
    "activation_maps": "inspection.activation_maps",
    "atlas": "jobs.atlas",
    "chained_convolutions": "inspection.activation_maps",
    "check_onnx": "inspection.onnx.check",
    "filter_weights": "inspection.filter_weights",
    "gallery": "page",
    "layers": "networks.listing",
    "load_model": "networks.load",
    "maximize": "jobs.maximize",
    "measure_statistics": "inspection.natural_statistics",
    "noise_image": "images.photos",
    "top_patches": "inspection.top_patches",
    "objectives": "objectives",
}

__all__ = [
    "ActivationMaps",
    "Atlas",
    "Grid",
    "InputError",
    "Layer",
    "LayerTable",
    "OnnxReport",
    "Patches",
    "Pictures",
    "Report",
    "__version__",
    "activation_maps",
    "atlas",
    "chained_convolutions",
    "check_onnx",
    "filter_weights",
    "gallery",
    "layers",
    "load_model",
    "maximize",
    "measure_statistics",
    "noise_image",
    "objectives",
    "top_patches",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("cnnvis_fast")
        return globals()[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_MODULE_OF[name]}", __name__)
    value = globals()[name] = module if name == _MODULE_OF[name] else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
