"""Determines where a network came from and which preprocessing it expects."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from ..config import configure
from ..errors import InputError
from .probe import input_channels, input_size, refuse_other_channels, runs, runs_at_many_sizes


@dataclass(frozen=True)
class Source:
    """Where a network came from and what it reads.

    Attributes:
        name: name of the network, or the class of a module that the user passed.
        weights: the weights' name or file name; "none" for random ones, "given" for a module's own.
        mean: mean per channel of pictures in [0, 1].
        std: standard deviation per channel.
        size: side in pixels of the network's usual input.
        resize: shorter side in pixels to which a photo is resized before its center is cropped; None for
            `size`.
        bicubic: whether photos are resized with bicubic instead of bilinear interpolation.
    """

    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int | None = None
    bicubic: bool = False


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


_OTHER_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def describe(
    model: nn.Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
) -> Source:
    """Returns the source of any module; `mean` and `std` override what is known of it.

    Args:
        model: any network.
        mean: mean per channel. If it is neither given nor known, it is assumed, and a warning says so.
        std: standard deviation per channel.
        size: side in pixels that will be used; None to find the network's usual size. If neither the source
            nor the network determines it, it is assumed, and a warning says so.

    Raises:
        InputError: mean and std do not fit each other, or the network.
    """
    if (mean is None) != (std is None):
        raise InputError("`mean` and `std` go together: pass both or neither")
    known = known_source(model)
    if mean is not None and std is not None:
        mean, std = _checked_preprocessing(mean, std)
        refuse_other_channels(model, len(mean))
    elif known:
        mean, std = known.mean, known.std
    elif (channels := input_channels(model)) == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        warnings.warn("no preprocessing given: assuming ImageNet's; pass mean= and std=", stacklevel=3)
    else:
        mean, std = (0.0,) * channels, (1.0,) * channels
        warnings.warn("no preprocessing given: assuming values in [0, 1]; pass mean= and std=", stacklevel=3)
    if any(module.training and isinstance(module, _OTHER_IN_TRAINING) for module in model.modules()):
        warnings.warn(
            f"{type(model).__name__} is in train mode: a copy in eval mode is used",
            stacklevel=3,
        )
    if known:
        return replace(known, mean=mean, std=std)
    if size is None:
        size = input_size(model, len(mean))
        if runs_at_many_sizes(model, len(mean), size):
            warnings.warn(
                f"no size given: taking {size} px; pass size= the size of your training pictures",
                stacklevel=3,
            )
    return Source(type(model).__name__, "given", mean, std, size)


def known_source(model: nn.Module) -> Source | None:
    """Returns what `load_model` or timm's configuration says about a network; None if neither does."""
    known: Source | None = getattr(model, "cnnvis_source", None)
    if known is None:
        known = timm_source(model, type(model).__name__)
        if known and not (
            len(known.mean) == input_channels(model) and runs(model, len(known.mean), known.size)
        ):
            known = None  # built for other pictures than its configuration says
    return known


def usual_size(model: nn.Module, channels: int, known: Source | None) -> int:
    """Returns the side in pixels of the network's usual input; if unknown, one at which the network runs.

    Args:
        model: the network.
        channels: number of input channels.
        known: what `known_source` returns.
    """
    return known.size if known else input_size(model, channels)


def _checked_preprocessing(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = tuple(map(float, mean)), tuple(map(float, std))
    except (TypeError, ValueError) as error:
        raise InputError(f"`mean` and `std` must be lists of numbers, got {mean!r}, {std!r}") from error
    finite = all(map(math.isfinite, (*mean, *std)))
    if not mean or len(std) != len(mean) or not finite or min(std) <= 0:
        raise InputError(
            f"`mean` and `std` must have one value per channel each, std above 0, got {mean}, {std}"
        )
    return mean, std


def timm_source(model: nn.Module, name: str) -> Source | None:
    """Returns the preprocessing from a model's timm configuration; None if it has none."""
    config: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not {"mean", "std", "input_size"} <= config.keys():
        return None
    mean, std = tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
    size = int(config["input_size"][-1])
    return Source(
        *(name, "given", mean, std, size),
        resize=math.floor(size / float(config.get("crop_pct") or 1)),
        bicubic=config.get("interpolation") == "bicubic",
    )


RESIZES = ("weights", "squeeze")


_LONGEST = 8  # times the shorter side; the crop never contains what lies beyond


def network_input(
    picture: Image.Image | Tensor, source: Source, resize: str = "weights", size: int | None = None
) -> Tensor:
    """Converts what `read_photo` returns to the size and channels that a network reads.

    Args:
        picture: the photo; a tensor keeps its own size.
        source: source of the network.
        resize: "weights" resizes the shorter side and crops the center as the weights' own preprocessing
            does; "squeeze" resizes the whole photo to a square, regardless of its proportions.
        size: side of the result in pixels, default the network's own; the cropped margin keeps its
            proportion.

    Returns:
        float32 [1, C, H, W] in [0, 1], not yet normalized.

    Raises:
        InputError: the channels do not fit, or an option is wrong.
    """
    if resize not in RESIZES:
        raise InputError(f"`resize` must be one of {', '.join(RESIZES)}, got {resize!r}")
    side = configure(size=size).size or source.size
    channels = len(source.mean)
    if isinstance(picture, Tensor):
        if len(picture) != channels:
            raise InputError(
                f"{source.name} reads {channels} channels: pass a tensor with as many, got {len(picture)}"
            )
        return picture[None]
    if channels not in (1, 3):
        raise InputError(f"{source.name} reads {channels} channels: pass a tensor [{channels}, H, W]")
    picture = picture.convert("L" if channels == 1 else "RGB")
    mode = InterpolationMode.BICUBIC if source.bicubic else InterpolationMode.BILINEAR
    if resize == "squeeze":
        resized = transforms.resize(picture, [side, side], mode)
    else:
        margin = (source.resize or source.size) / source.size
        # Otherwise a very long photo would be enlarged to millions of pixels only to be cropped.
        longest = _LONGEST * min(picture.size)
        if max(picture.size) > longest:
            picture = transforms.center_crop(picture, [min(longest, n) for n in picture.size[::-1]])
        resized = transforms.center_crop(
            transforms.resize(picture, [round(side * margin)], mode), [side, side]
        )
    return transforms.to_tensor(resized)[None]


def normalized(model: nn.Module, pixels: Tensor, source: Source) -> Tensor:
    """Returns pixels normalized as the network reads them, on its device and in its dtype."""
    parameter = next(model.parameters(), torch.zeros(()))
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (source.mean, source.std))
    return ((pixels - mean) / std).to(parameter.device, parameter.dtype)
