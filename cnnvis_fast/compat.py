"""Offers the class and the picture table of the repository that this project started from, on this engine.

    from torchvision.models import vgg16
    from cnnvis_fast.compat import ActivationMaximizationVis

    ActivationMaximizationVis(vgg16(weights="DEFAULT").features, 51, 15, 220).vis_cnn_layer()

J. Bellucci, "Convolutional Neural Network Visualizations", 2020 (cnn-visualizations-pytorch). Its loop is the
preset `original`: Adam at a constant rate of 0.1 with weight decay 1e-6 on the normalized image, from gray
noise, without transforms. Two things differ on purpose: many filters can run in one batch, and the file of a
picture contains the picture alone instead of a plot.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from .ascent.loop import Ascent
from .ascent.plan import Plan, make_plan
from .config import configure
from .errors import InputError
from .images.sheets import contact_sheet, to_image
from .networks.load import open_model
from .networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, describe
from .parameterizations.pixels import Normalized
from .progress import hidden
from .storage.files import png, told, write_whole

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
_WIDTHS = [64, 64, 128, 128, 256, 256, 256]  # channels of VGG16's convolutions, as far as the table goes


class ActivationMaximizationVis:
    """Makes the picture that excites one filter most, like the class of this name in that repository.

    Attributes:
        layer_img: the picture after the last step, float32 [224, 224, 3]; values may leave [0, 1].
        losses: minus the mean output of the filter, before every step.
        num_filters: number of filters of the layer.
    """

    def __init__(self, model: nn.Module, epochs: int, cnn_layer: int, cnn_filter: int) -> None:
        """Plans the picture and makes the folder `activ_max_imgs`.

        Args:
            model: a sequence of layers, such as `vgg16().features`; set to evaluation mode.
            epochs: one more than the number of steps.
            cnn_layer: index of the layer, of any kind.
            cnn_filter: channel of the layer's output.

        Raises:
            InputError: the model is not a sequence of layers, or has no such layer or filter.
        """
        name = _layer_name(model, cnn_layer)
        self.model = model.eval()
        self.epochs, self.cnn_layer, self.cnn_filter = epochs, cnn_layer, cnn_filter
        self._plan = _plan(model, name, max(1, epochs - 1), batch=1)
        self.num_filters = self._plan.objective.channels
        if not 0 <= cnn_filter < self.num_filters:
            raise InputError(
                f"no filter {cnn_filter} in layer {cnn_layer}: it has {self.num_filters}, numbered from 0"
            )
        self.losses: list[float] = []
        self.layer_img: np.ndarray | None = None
        with told(Path(FOLDER)):
            Path(FOLDER).mkdir(exist_ok=True)

    def vis_cnn_layer(self) -> None:
        """Runs the ascent from NumPy's random noise; prints the loss and saves every fifth picture.

        Pictures are named `activ_max_imgs/am_vis_l<layer>_f<filter>_iter<epoch>.jpg`.
        """
        if self.epochs < 2:
            return
        plan, parameters = self._plan, _normalized(self._plan)
        noise = np.random.randint(125, 190, (SIZE, SIZE, 3), dtype=np.uint8)
        start = parameters.normalized(torch.from_numpy(noise).permute(2, 0, 1)[None].double() / 255)
        self.losses = []

        def after(step: int, p: Tensor, scores: Tensor) -> None:
            self.losses.append(-float(scores[0]))
            print(f"Epoch {step + 1}/{self.epochs} --> Loss {self.losses[-1]:.3f}")
            self.layer_img = parameters.unclamped(p[0]).permute(1, 2, 0).cpu().numpy()
            if step % EVERY == 0:
                _save(Path(FOLDER), self.cnn_layer, self.cnn_filter, step + 1, parameters.unclamped(p[0]))

        Ascent(plan).run([self.cnn_filter], after, start)


def reproduce_original(
    out: str | os.PathLike[str] = FOLDER,
    model: nn.Module | str = "vgg16",
    *,
    weights: Any = "DEFAULT",
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Image.Image:
    """Makes all pictures of `TABLE` under their original names, a layer in one batch, and a sheet of them.

    Args:
        out: folder for the pictures and `sheet.png`.
        model: VGG16 with torchvision's names, or a name for `load_model`.
        weights: weights of a network given by name.
        seed: seed of the noise that the pictures start from.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: whether to show a bar; None shows it on a terminal.

    Returns:
        The sheet, layer by layer in the table's order.

    Raises:
        InputError: the network does not have the `features` of VGG16, or the folder cannot be written.
    """
    network = open_model(model, weights)
    features: Any = getattr(network, "features", None)
    convolutions = [m for m in features or () if isinstance(m, nn.Conv2d)]
    if [m.out_channels for m in convolutions[: len(_WIDTHS)]] != _WIDTHS:
        raise InputError("the original's table is of VGG16: pass vgg16, or a network with its `features`")
    folder, tiles, labels = Path(out), [], []
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    steps = sum(max(wanted.values()) - 1 for wanted in TABLE.values())
    with tqdm(total=steps, unit=" steps", disable=hidden(progress)) as bar:
        for layer, wanted in TABLE.items():
            name = _layer_name(features, layer)
            plan = _plan(features, name, max(wanted.values()) - 1, len(wanted), device, seed)
            kept = _kept(plan, folder, layer, wanted, bar)
            tiles += [to_image(picture) for picture in kept.values()]
            labels += [f"layer {layer}, filter {channel}" for channel in kept]
    sheet = contact_sheet(tiles, labels)
    with told(folder):
        write_whole(folder / "sheet.png", png(sheet))
    return sheet


def _kept(
    plan: Plan, folder: Path, layer: int, wanted: Mapping[int, int], bar: tqdm[Any]
) -> dict[int, np.ndarray]:
    """Runs one layer of the table; saves each filter's picture at its iteration and returns them."""
    parameters, found = _normalized(plan), {}

    def after(step: int, p: Tensor, _scores: Tensor) -> None:
        bar.update()
        for row, (channel, iteration) in enumerate(wanted.items()):
            if step + 1 == iteration:
                found[channel] = _save(folder, layer, channel, iteration, parameters.unclamped(p[row]))

    Ascent(plan).run(list(wanted), after)
    return {channel: found[channel] for channel in wanted}


def _layer_name(model: nn.Module, index: int) -> str:
    names = [name for name, _ in model.named_children()] if isinstance(model, nn.Sequential) else []
    if not names:
        raise InputError(
            f"the original needs a sequence of layers such as vgg16().features, got {type(model).__name__}"
        )
    if not 0 <= index < len(names):
        raise InputError(f"no layer {index}: the network has {len(names)}, numbered from 0")
    return names[index]


def _plan(
    model: nn.Module, name: str, steps: int, batch: int, device: str | None = None, seed: int = 0
) -> Plan:
    parameter = next(model.parameters(), None)
    own = "cpu" if parameter is None else str(parameter.device)
    config = configure("original", steps=steps, batch=batch, size=SIZE, seed=seed, device=device or own)
    return make_plan(model, name, config, describe(model, IMAGENET_MEAN, IMAGENET_STD))


def _normalized(plan: Plan) -> Normalized:
    return cast(Normalized, plan.parameters)


def _save(folder: Path, layer: int, channel: int, iteration: int, picture: Tensor) -> np.ndarray:
    """Writes a picture [3, H, W] as a JPEG file under the original's name; returns it in 8 bits."""
    pixels: np.ndarray = picture.clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    content = io.BytesIO()
    to_image(pixels).save(content, "JPEG", quality=95)
    with told(folder):
        write_whole(folder / f"am_vis_l{layer}_f{channel}_iter{iteration}.jpg", content.getvalue())
    return pixels
