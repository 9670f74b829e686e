"""See what the filters of a convolutional network look for, a whole layer at a time.

import cnnvis_fast as cv

pictures = cv.maximize("texturenet", "conv5", filters=range(16))
pictures.sheet().save("sheet.png")
"""

from importlib.metadata import version

from . import objectives
from .activations import ActivationMaps, activation_maps, chained_convolutions
from .atlas import Atlas, atlas
from .diagnostics import Report
from .errors import InputError
from .layers import Layer, LayerTable, layers
from .models import load_model
from .natural import measure_statistics
from .onnx_check import check_onnx
from .onnx_report import OnnxReport
from .photos import noise_image
from .pictures import Pictures, maximize
from .weights_grid import Grid, filter_weights

__version__ = version("cnnvis_fast")

__all__ = [
    "ActivationMaps",
    "Atlas",
    "Grid",
    "InputError",
    "Layer",
    "LayerTable",
    "OnnxReport",
    "Pictures",
    "Report",
    "__version__",
    "activation_maps",
    "atlas",
    "chained_convolutions",
    "check_onnx",
    "filter_weights",
    "layers",
    "load_model",
    "maximize",
    "measure_statistics",
    "noise_image",
    "objectives",
]
