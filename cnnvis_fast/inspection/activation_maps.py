"""Computes activation maps: the output of every channel of a layer for one photo."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import InputError
from ..images.photos import Photo, read_photo
from ..images.sheets import SCALES, contact_sheet, to_image, value_sheet, value_status, value_tiles
from ..networks.channels import channel_axis, channels_second
from ..networks.hooks import hooked
from ..networks.load import open_model
from ..networks.names import LOGITS, choose_layers, convolutions, target_modules
from ..networks.preprocessing import describe, network_input, normalized
from ..networks.probe import evaluating, run_on
from ..progress import hidden
from ..storage.files import plain_name, png, told, write_whole

_FOLLOWED_TILE, _LONGEST_NAME = 224, 34


class ActivationMaps(dict[str, Tensor]):
    """Maps for one photo: canonical layer name -> float32 [C, H, W], in the order in which the layers ran.

    A layer can also be looked up as `convN`.

    Attributes:
        picture: the network's input, float32 [C, H, W] in [0, 1], before normalization.
    """

    def __init__(self, maps: Mapping[str, Tensor], picture: Tensor, aliases: Mapping[str, str]) -> None:
        super().__init__(maps)
        self.picture, self._aliases = picture, dict(aliases)

    def __missing__(self, name: str) -> Tensor:
        """Returns the maps of `convN`, or raises InputError."""
        if self._aliases.get(name) in self:
            return self[self._aliases[name]]
        raise InputError(f"no maps of {name!r}: there are maps of {', '.join(list(self)[:5])}")

    def sheet(self, name: str, scale: str = "each") -> Image.Image:
        """Draws all maps of a layer, labeled with their channels; small ones are enlarged pixel by pixel.

        Args:
            name: name of the layer.
            scale: "each" shows every map from its lowest value (black) to its highest (white); "common" shows
                all of them on one scale with blue below zero and red above.

        Raises:
            InputError: there are no maps of that layer.
        """
        maps = self[name].numpy()
        return value_sheet(maps, range(len(maps)), scale)

    def follow(self, channel: int) -> Image.Image:
        """Draws one channel of all layers side by side, resized to one size, each map on its own scale.

        Args:
            channel: number of the channel; the tile of a layer with fewer channels says so.

        Raises:
            InputError: no layer has that channel.
        """
        widest = max(map(len, self.values()), default=0)
        if isinstance(channel, bool) or not isinstance(channel, int) or not 0 <= channel < widest:
            raise InputError(f"no layer has a channel {channel}: the widest has {widest}, numbered from 0")
        size = _FOLLOWED_TILE, round(_FOLLOWED_TILE * self.picture.shape[1] / self.picture.shape[2])
        tiles, labels, alarms = [], [], []
        for name, maps in self.items():
            label, status = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :], "ok"
            if channel < len(maps):
                value = maps[channel].numpy()
                status = value_status(value, "each")
                tiles.append(value_tiles(value[None], "each")[0].resize(size, Image.Resampling.NEAREST))
            else:
                tiles.append(_note(size, f"has {len(maps)} channels"))
            labels.append(label if status == "ok" else f"{label} {status}")
            alarms.append(status != "ok")
        return contact_sheet(tiles, labels, alarms)

    def save(
        self,
        out: str | os.PathLike[str],
        follow: int | None = None,
        scale: str = "each",
        progress: bool | None = None,
    ) -> list[Path]:
        """Writes one sheet per layer, `<layer>.png`, and the network's input, `_input.png`.

        Every file is written completely or not at all; files of earlier calls are replaced.

        Args:
            out: the folder; it is created if necessary.
            follow: a channel to follow, in `_follow-<channel>.png`.
            scale: scale of the layers' sheets, "each" (every map its own) or "common".
            progress: whether to show a bar; None shows it on a terminal.

        Returns:
            The paths of all sheets.

        Raises:
            InputError: the folder cannot be written, or no layer has the channel to follow.
        """
        if not str(out):
            raise InputError("`out` is empty: pass a folder's name")
        if scale not in SCALES:
            raise InputError(f"`scale` must be one of {', '.join(SCALES)}, got {scale!r}")
        makers: dict[str, Callable[[], Image.Image]] = {}
        if follow is not None:
            followed = self.follow(follow)
            makers[f"_follow-{follow}.png"] = lambda: followed
        makers["_input.png"] = lambda: to_image((self.picture * 255).round().byte().numpy())
        for name in self:
            makers[f"{plain_name(name)}.png"] = lambda name=name: self.sheet(name, scale)  # type: ignore[misc]
        folder = Path(out)
        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for file, make in tqdm(makers.items(), desc="sheets", disable=hidden(progress)):
            content = png(make())
            with told(folder):
                write_whole(folder / file, content)
        return [folder / file for file in makers if file != "_input.png"]


def activation_maps(
    model: nn.Module | str,
    image: Photo,
    layers: Sequence[str] | str | None = None,
    *,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str = "weights",
    size: int | None = None,
) -> ActivationMaps:
    """Returns the output of every channel of some layers for a photo, from one pass of the whole network.

    Args:
        model: a network, or a name that `load_model` accepts. It is never changed and runs on its current
            device in its current dtype.
        image: a path, a PIL image or an array, which are resized; or a tensor, uint8 or floating point in
            [0, 1], [C, H, W] or [1, C, H, W], which keeps its size.
        layers: dotted names, `convN` or `logits`; every convolution by default. If a module runs more than
            once, its first output counts, before any in-place operation overwrites it.
        weights: weights of a network given by name, as for `load_model`.
        mean: mean per channel of the preprocessing, if the network's own is not known.
        std: standard deviation per channel of the preprocessing.
        resize: "weights" resizes and crops photos as the weights' own preprocessing does; "squeeze" resizes
            the whole photo to a square.
        size: side in pixels to which photos are resized, default the network's own.

    Returns:
        The maps by canonical name, in the order in which the layers ran.

    Raises:
        InputError: (a ValueError) an argument is wrong, or a requested layer yields no maps.
    """
    picture = read_photo(image)
    network = open_model(model, weights)
    source = describe(network, mean, std, size)
    aliases = convolutions(network)
    wanted = choose_layers(network, layers)
    pixels = network_input(picture, source, resize, size)
    outputs: dict[str, Tensor] = {}

    def collect(name: str, _module: nn.Module, output: Any) -> None:
        if name not in outputs and isinstance(output, Tensor):
            outputs[name] = _kept(output)

    with evaluating(network), hooked(target_modules(network, wanted), collect):
        run_on(network, normalized(network, pixels, source), type(network).__name__)
    maps = {}
    for name, output in outputs.items():
        axis = channel_axis(output.shape, None if name == LOGITS else network.get_submodule(name))
        if output.ndim == 4 and len(output) == 1 and axis is not None:
            maps[name] = channels_second(output, axis)[0].contiguous()
    for name in wanted if layers and layers != "all" else ():
        if name not in maps:
            found = list(outputs[name].shape) if name in outputs else "none"
            raise InputError(f"{name!r} yields no maps: expected [1, channels, height, width], got {found}")
    return ActivationMaps(maps, pixels[0], aliases)


def chained_convolutions(
    model: nn.Module | str,
    image: Photo,
    layers: Sequence[str] | None = None,
    *,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str = "weights",
    size: int | None = None,
    progress: bool | None = None,
) -> ActivationMaps:
    """Returns the maps of a network's convolutions applied in a row, without ReLU, pooling or anything else.

    No such network was ever trained: the maps show what the linear part alone would do. Without pooling they
    stay large; for VGG16 at 224 pixels they take 700 MB.

    Args:
        model: a network, or a name that `load_model` accepts.
        image: a path, a PIL image or an array, which are resized, or a tensor, which keeps its size.
        layers: the convolutions in the order to chain them; by default all in the order of definition.
        weights: weights of a network given by name, as for `load_model`.
        mean: mean per channel of the preprocessing, if the network's own is not known.
        std: standard deviation per channel of the preprocessing.
        resize: "weights" resizes and crops photos as the weights' own preprocessing does; "squeeze" resizes
            the whole photo to a square.
        size: side in pixels to which photos are resized, default the network's own.
        progress: whether to show a bar; None shows it on a terminal.

    Returns:
        The output of every convolution by canonical name.

    Raises:
        InputError: (a ValueError) a convolution does not read as many channels as the one before it yields.
    """
    picture = read_photo(image)
    network = open_model(model, weights)
    source = describe(network, mean, std, size)
    aliases = convolutions(network)
    names = choose_layers(network, layers)
    channels, before = len(source.mean), "the picture"
    chain: list[nn.Conv2d] = []
    for name in names:
        module = None if name == LOGITS else network.get_submodule(name)
        if not isinstance(module, nn.Conv2d):
            raise InputError(f"only convolutions can be chained, and {name} is not one: leave it out")
        if module.in_channels != channels:
            raise InputError(
                f"{name} cannot follow {before}: it reads {module.in_channels} channels and gets {channels}; "
                "name layers that fit each other"
            )
        chain.append(module)
        channels, before = module.out_channels, name
    pixels = network_input(picture, source, resize, size)
    maps: dict[str, Tensor] = {}
    values = normalized(network, pixels, source)
    with evaluating(network):
        for name, module in tqdm(
            list(zip(names, chain, strict=True)), desc="chain", disable=hidden(progress)
        ):
            values = run_on(module, values, name)
            maps[name] = _kept(values)[0]
    return ActivationMaps(maps, pixels[0], aliases)


def _kept(output: Tensor) -> Tensor:
    """Returns a float32 copy on the CPU, which an in-place ReLU after the layer does not overwrite."""
    return output.detach().to("cpu", torch.float32, copy=True).contiguous()


def _note(size: tuple[int, int], text: str) -> Image.Image:
    """Draws a tile with a text instead of a map."""
    tile = Image.new("RGB", size, "white")
    middle, font = (size[0] / 2, size[1] / 2), ImageFont.load_default(size=16)
    ImageDraw.Draw(tile).text(middle, text, font=font, fill=(110, 110, 110), anchor="mm")
    return tile
