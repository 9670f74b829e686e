"""The class and the picture table of the repository that this project started from, on this engine.

    from torchvision.models import vgg16
    from cnnvis_fast.compat import ActivationMaximizationVis

    ActivationMaximizationVis(vgg16(weights="DEFAULT").features, 51, 15, 220).vis_cnn_layer()

J. Bellucci, "Convolutional Neural Network Visualizations", 2020 (cnn-visualizations-pytorch). Its loop is the
preset `original`: Adam at a constant rate of 0.1 with weight decay 1e-6 on the normalized image, from grey noise,
one image, no transforms. What differs on purpose: progress goes through the engine, which runs the network up
to the layer only and in one batch for many filters, and a picture is saved as it is instead of inside a plot.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from .ascent import Ascent, Watch
from .config import configure
from .errors import InputError
from .models import IMAGENET_MEAN, IMAGENET_STD, describe, open_model
from .parameters import Normalized
from .plan import Plan, make_plan
from .sheet import contact_sheet, to_image
from .store import write_image

FOLDER = "activ_max_imgs"
SIZE, EVERY = 224, 5

TABLE: Mapping[int, Mapping[int, int]] = {
    1: {1: 31, 5: 21, 6: 31, 55: 41},
    3: {1: 31, 5: 41, 28: 31, 38: 31},
    5: {5: 41},
    10: {5: 41, 10: 51, 65: 51, 165: 51},
    12: {28: 51, 68: 51, 168: 51, 178: 51},
    14: {28: 51, 58: 51, 158: 51, 178: 51},
    15: {40: 51, 65: 51, 165: 51, 220: 51},
    16: {17: 51, 128: 51, 156: 51, 157: 41},
}
"""Pictures of that repository: index in VGG16's `features`, filter, and the iteration that was kept."""
