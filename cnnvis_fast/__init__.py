"""See what the filters of a convolutional network look for, a whole layer at a time.

import cnnvis_fast as cv

pictures = cv.maximize("texturenet", "conv5", filters=range(16))
pictures.sheet().save("sheet.png")
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import objectives
    from .activations import ActivationMaps, activation_maps, chained_convolutions
    from .atlas import Atlas, atlas
    from .diagnostics import Report
    from .errors import InputError
    from .gallery import gallery
    from .layers import Layer, LayerTable, layers
    from .maximization import maximize
    from .models import load_model
    from .natural import measure_statistics
    from .onnx_check import check_onnx
    from .onnx_report import OnnxReport
    from .patches import Patches, top_patches
    from .photos import noise_image
    from .pictures import Pictures
    from .weights_grid import Grid, filter_weights

__version__ = version("cnnvis_fast")

# Where each public name lives. It is imported when it is first used, since torch takes seconds to load and
# neither `cnnvis-fast --help` nor shell completion needs it.
_HOMES = {
    "ActivationMaps": "activations",
    "Atlas": "atlas",
    "Grid": "weights_grid",
    "InputError": "errors",
    "Layer": "layers",
    "LayerTable": "layers",
    "OnnxReport": "onnx_report",
    "Patches": "patches",
    "Pictures": "pictures",
    "Report": "diagnostics",
    "activation_maps": "activations",
    "atlas": "atlas",
    "chained_convolutions": "activations",
    "check_onnx": "onnx_check",
    "filter_weights": "weights_grid",
    "gallery": "gallery",
    "layers": "layers",
    "load_model": "models",
    "maximize": "maximization",
    "measure_statistics": "natural",
    "noise_image": "photos",
    "top_patches": "patches",
}
# Modules that are public as such.
_MODULES = ("objectives",)

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


class _Package(ModuleType):
    """This package: loads public names on first use, and keeps them from submodules of the same name."""

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f".{name}", self.__name__)
        if name not in _HOMES:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_HOMES[name]}", self.__name__), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the submodule `atlas` would put it in the place of the function `atlas`.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
