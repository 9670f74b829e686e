"""Activation maps: what every channel of a layer answers to one picture."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..networks.load import open_model
from ..networks.names import LOGITS, convolutions, resolve
from ..networks.preprocessing import describe, network_input, normalized
from ..networks.probe import evaluating, run_on
from ..progress import hidden
from ..storage.files import plain_name, png, told, write_whole

_FOLLOWED_TILE, _LONGEST_NAME = 224, 34


class ActivationMaps(dict[str, Tensor]):
    """Maps of one picture: canonical name of a layer -> float32 [C, H, W], in the order in which they ran.

    A layer may also be looked up as `convN`.

    Attributes:
        picture: what the network read, float32 [C, H, W] in [0, 1], before normalization.
    """

    def __init__(self, maps: Mapping[str, Tensor], picture: Tensor, aliases: Mapping[str, str]) -> None:
        super().__init__(maps)
        self.picture, self._aliases = picture, dict(aliases)

    def __missing__(self, name: str) -> Tensor:
        """The maps of `convN`; where there are none, a sentence."""
        if self._aliases.get(name) in self:
            return self[self._aliases[name]]
        raise InputError(f"no maps of {name!r}: there are those of {', '.join(list(self)[:5])}")

    def sheet(self, name: str, scale: str = "each") -> Image.Image:
        """All maps of a layer, labelled with their channels; small ones are enlarged pixel by pixel.

        Args:
            name: of the layer.
            scale: "each" shows every map from its lowest value (black) to its highest (white), "common" all
                of them on one scale with blue below zero and red above.

        Raises:
            InputError: there are no maps of that layer.
        """
        maps = self[name].numpy()
        return value_sheet(maps, range(len(maps)), scale)

    def follow(self, channel: int) -> Image.Image:
        """One channel through all layers side by side, brought to one size, each map on its own scale.

        Args:
            channel: its number; layers that have fewer say so on their tile.

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
        """Writes one sheet a layer, `<layer>.png`, and what the network read, `_input.png`.

        Every file is written whole or not at all; those of earlier calls are replaced.

        Args:
            out: the folder, made if need be.
            follow: a channel to follow, in `_follow-<channel>.png`.
            scale: of the layers' sheets, see `sheet`.
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
    """What every channel of some layers answers to a picture, in one forward pass of the whole network.

    Args:
        model: a network, or a name for `load_model`. It is never changed and runs where and in the dtype in
            which it is.
        image: a path, a PIL image or an array, which are resized, or a tensor, which is taken at its own
            size; see `photos.read_photo`.
        layers: dotted names, `convN` or `logits`; every convolution by default. A module that runs more
            than once is taken where it runs first, with its output before whatever overwrites it in place.
        weights: of a network given by name, see `load_model`.
        mean: of the preprocessing per channel, if the network's own is not known.
        std: of the preprocessing per channel.
        resize: "weights" resizes and crops photos as the weights' own preprocessing does, "squeeze" brings
            the whole photo to a square.
        size: side in pixels to which photos are brought, default the network's own.

    Returns:
        The maps by canonical name, in the order in which the layers ran.

    Raises:
        InputError: (a ValueError) an argument is wrong, or a layer named yields no maps.
    """
    picture = read_photo(image)
    network = open_model(model, weights)
    source = describe(network, mean, std, size)
    aliases = convolutions(network)
    named = [layers] if isinstance(layers, str) else layers
    wanted = list(dict.fromkeys(resolve(network, name) for name in named or aliases.values()))
    if not wanted:
        raise InputError(f"{type(network).__name__} has no convolution: name layers, as `layers` lists them")
    pixels = network_input(picture, source, resize, size)
    with evaluating(network), _collecting(network, wanted) as outputs:
        run_on(network, normalized(network, pixels, source), type(network).__name__)
    maps = {}
    for name, output in outputs.items():
        axis = channel_axis(output.shape, None if name == LOGITS else network.get_submodule(name))
        if output.ndim == 4 and len(output) == 1 and axis is not None:
            maps[name] = channels_second(output, axis)[0].contiguous()
    for name in wanted if named else ():
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
    """Maps of a network's convolutions run one on the other, with no ReLU, pooling or anything else between.

    That is no network that was ever trained: it shows what the linear part alone would do. Without pooling
    the maps stay large; for VGG16 at 224 pixels they take 700 MB.

    Args:
        model: as for `activation_maps`.
        image: as for `activation_maps`.
        layers: the convolutions in the order to chain them, by default all in the order of their definition.
        weights: as for `activation_maps`.
        mean: as for `activation_maps`.
        std: as for `activation_maps`.
        resize: as for `activation_maps`.
        size: as for `activation_maps`.
        progress: whether to show a bar; None shows it on a terminal.

    Returns:
        The output of every convolution by canonical name.

    Raises:
        InputError: (a ValueError) a convolution does not read the channels that the one before yields.
    """
    picture = read_photo(image)
    network = open_model(model, weights)
    source = describe(network, mean, std, size)
    aliases = convolutions(network)
    names = list(dict.fromkeys(resolve(network, name) for name in layers or aliases.values()))
    channels, before = len(source.mean), "the picture"
    chain: list[nn.Conv2d] = []
    for name in names:
        module = None if name == LOGITS else network.get_submodule(name)
        if not isinstance(module, nn.Conv2d):
            raise InputError(f"only convolutions can be chained, and {name} is none")
        if module.in_channels != channels:
            raise InputError(
                f"{name} cannot follow {before}: it reads {module.in_channels} channels and gets {channels}; "
                "name layers that fit on each other"
            )
        chain.append(module)
        channels, before = module.out_channels, name
    if not chain:
        raise InputError(f"{type(network).__name__} has no convolution")
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


@contextlib.contextmanager
def _collecting(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Copies the first output of each module as it comes; the hooks are gone afterwards in any case."""
    outputs: dict[str, Tensor] = {}

    def collector(name: str) -> Callable[..., None]:
        def collect(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name not in outputs and isinstance(output, Tensor):
                outputs[name] = _kept(output)

        return collect

    handles = []
    try:
        for name in names:
            module = model if name == LOGITS else model.get_submodule(name)
            handles.append(module.register_forward_hook(collector(name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _kept(output: Tensor) -> Tensor:
    """A copy that an in-place ReLU behind the layer does not reach."""
    return output.detach().to("cpu", torch.float32, copy=True).contiguous()


def _note(size: tuple[int, int], text: str) -> Image.Image:
    """A tile that says something instead of showing it."""
    tile = Image.new("RGB", size, "white")
    middle, font = (size[0] / 2, size[1] / 2), ImageFont.load_default(size=16)
    ImageDraw.Draw(tile).text(middle, text, font=font, fill=(110, 110, 110), anchor="mm")
    return tile
