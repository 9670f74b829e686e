"""See what the filters of a convolutional network look for, a whole layer at a time.

import cnnvis_fast as cv

pictures = cv.maximize("texturenet", "conv5", filters=range(16))
pictures.sheet().save("sheet.png")
"""

from importlib.metadata import version

from .atlas import Atlas, atlas
from .errors import InputError
from .layers import Layer, LayerTable, layers
from .models import load_model
from .onnx_check import check_onnx
from .onnx_report import OnnxReport
from .pictures import Pictures, maximize

__version__ = version("cnnvis_fast")

__all__ = [
    "Atlas",
    "InputError",
    "Layer",
    "LayerTable",
    "OnnxReport",
    "Pictures",
    "__version__",
    "atlas",
    "check_onnx",
    "layers",
    "load_model",
    "maximize",
]
