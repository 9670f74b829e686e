"""Shows the filters of a convolution as a grid of images: the weights themselves, not what they detect."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError
from ..images.sheets import SCALES, value_sheet
from ..networks.load import open_model
from ..networks.names import LOGITS, parse_filters, resolve
from ..storage.files import png, told, write_whole

VIEWS = ("auto", "rgb", "mean", "channel")


@dataclass(frozen=True)
class Grid:
    """Filters of one convolution.

    Attributes:
        layer: canonical name of the convolution.
        filters: the number of every filter.
        array: unscaled float32 weights, [N, height, width], or [N, 3, height, width] in the view "rgb".
        view: "rgb", "mean" or "channel".
        scale: scale of the sheet, "each" or "common".
    """

    layer: str
    filters: list[int]
    array: np.ndarray
    view: str
    scale: str

    def sheet(self) -> Image.Image:
        """Draws all filters, each with its number; small ones are enlarged pixel by pixel."""
        return value_sheet(self.array, self.filters, self.scale)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sheet as a PNG file, completely or not at all; missing folders are created.

        Raises:
            InputError: the name does not end in .png, or the file cannot be written.
        """
        target = check_png_name(path)
        content = png(self.sheet())
        with told(target, "file"):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, content)


def filter_weights(
    model: nn.Module | str,
    layer: str,
    filters: Iterable[int] | int | str | None = None,
    *,
    weights: Any = "DEFAULT",
    view: str = "auto",
    channel: int | None = None,
    scale: str | None = None,
) -> Grid:
    """Returns the filters of any two-dimensional convolution as a grid.

    Args:
        model: a network, or a name that `load_model` accepts. It is never changed.
        layer: dotted module path or `convN` (the N-th convolution).
        filters: numbers, or text like "0-63,100"; all by default.
        weights: weights of a network given by name, as for `load_model`.
        view: "rgb" shows the three input channels as colors, "mean" the mean over the input channels,
            "channel" one input channel. "auto" means "channel" if `channel` is given, else "rgb" if the
            convolution reads three channels, else "mean".
        channel: the input channel to show, default 0; in a grouped convolution, counted within the filter's
            group.
        scale: "each" shows every filter from its lowest weight (black) to its highest (white); "common" shows
            all of them on one scale with blue below zero and red above. Default "each" for "rgb", else
            "common".

    Returns:
        The grid, in the order of `filters`.

    Raises:
        InputError: (a ValueError) an argument is wrong, or the layer is not a 2-d convolution.
    """
    for name, value, choices in (("view", view, VIEWS), ("scale", scale, (None, *SCALES))):
        if value not in choices:
            valid = ", ".join(choice for choice in choices if choice)
            raise InputError(f"`{name}` must be one of {valid}, got {value!r}")
    network = open_model(model, weights)
    name = resolve(network, layer)
    values = _filters(network, name)
    chosen = parse_filters(filters, len(values), name)
    inputs = values.shape[1]
    if view == "auto":
        view = "channel" if channel is not None else "rgb" if inputs == 3 else "mean"
    if channel is not None and view != "channel":
        raise InputError(f'`channel` needs the view "channel", got the view {view!r}')
    if view == "rgb" and inputs != 3:
        raise InputError(f'the view "rgb" needs 3 input channels, {name} reads {inputs}: pass "mean"')
    channel = channel or 0
    if isinstance(channel, bool) or not isinstance(channel, int) or not 0 <= channel < inputs:
        raise InputError(f"no input channel {channel} in {name}: it reads {inputs}, numbered from 0")
    picked = values[chosen]
    shown = {"rgb": picked, "mean": picked.mean(1), "channel": picked[:, channel]}[view]
    return Grid(name, chosen, shown.numpy(), view, scale or ("each" if view == "rgb" else "common"))


def check_png_name(path: str | os.PathLike[str]) -> Path:
    """Refuses a name that is not a PNG file's before anything is computed.

    Raises:
        InputError: the name does not end in .png, or it is a folder's.
    """
    target = Path(path)
    if target.suffix.lower() != ".png" or target.is_dir():
        raise InputError(f"cannot write an image to {str(path)!r}: pass a file name that ends in .png")
    return target


def _filters(model: nn.Module, name: str) -> Tensor:
    """Returns a convolution's weights, float32 [filters, input channels of one group, height, width]."""
    module = None if name == LOGITS else model.get_submodule(name)
    if not isinstance(module, nn.modules.conv._ConvNd):
        kind = "output" if module is None else type(module).__name__
        raise InputError(
            f"{name} is not a convolution but of kind {kind}: pick one that `layers` lists as convN"
        )
    if isinstance(module.weight, nn.UninitializedParameter):
        raise InputError(f"{name} has no weights yet: run the network once first")
    values = module.weight.detach().float().cpu()
    if values.ndim != 4:
        raise InputError(
            f"{name} is a {values.ndim - 2}-d convolution: pick a 2-d one to see filters as images"
        )
    if module.transposed:
        # Stored as [inputs, filters of one group, ...]; the inputs of a group lie side by side.
        grouped = values.unflatten(0, (module.groups, -1)).transpose(1, 2)
        values = grouped.flatten(0, 1)
    return values
