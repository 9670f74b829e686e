"""Computes how every unit of an atlas responds to one photo, for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..images.photos import Photo
from ..images.sheets import to_image, value_tiles
from ..inspection.activation_maps import activation_maps
from ..networks.digests import weights_digest
from ..networks.listing import layers as list_layers
from ..networks.load import load_model, open_model
from ..networks.preprocessing import known_source
from ..storage.atlas_reader import AtlasLayer, AtlasReader
from ..storage.files import png, write_whole
from .thumbnails import SpriteWriter, remove_sheets


class PhotoMaps:
    """The activation maps of a photo, from one forward pass.

    Args:
        folder: the atlas.
        layers: layers of the atlas.
        photo: the photo: a path, an image or an array.
        model: the network of the atlas; None takes the one that the atlas names.
        weights: weights of a network given by name; None takes those of the atlas.

    Attributes:
        about: what the page shows with the maps: the layers that have them.
    """

    def __init__(
        self,
        folder: AtlasReader,
        layers: list[AtlasLayer],
        photo: Photo,
        model: nn.Module | str | None,
        weights: Any,
    ) -> None:
        network = _network(folder, model, weights)
        self._layers = layers
        mean, std = folder.job.get("mean"), folder.job.get("std")
        size = None if known_source(network) else _size(folder)
        rows = list_layers(network, size=size, channels=len(mean or "rgb"))
        yields_maps = {row.name for row in rows if row.height}
        names = [layer.name for layer in layers if layer.name in yields_maps]
        self._maps = activation_maps(network, photo, names, mean=mean, std=std, size=size) if names else None
        self.about = {"layers": names}

    def write(self, out: Path) -> None:
        """Writes `photo.png` and `maps-00.png`, ... of every layer, each map on its own scale."""
        if self._maps is None:
            return
        for layer in self._layers:
            if layer.name not in self._maps:
                remove_sheets(layer.folder, "maps")
                continue
            sprites = SpriteWriter(layer.folder, "maps", lossless=True)
            for number in layer.numbers:
                sprites.add(value_tiles(self._maps[layer.name][number : number + 1].numpy(), "each")[0])
            sprites.close()
        write_whole(out / "photo.png", png(to_image((self._maps.picture * 255).round().byte().numpy())))


def _size(folder: AtlasReader) -> int | None:
    """Returns the size of the atlas's pictures, for a network whose own input size is not known."""
    config = folder.job.get("config")
    return config.get("size") if isinstance(config, dict) else None


def _network(folder: AtlasReader, model: nn.Module | str | None, weights: Any) -> nn.Module:
    """Returns the network of the atlas, recognized by its weights."""
    if model is None:
        name = str(folder.job.get("model"))
        chosen = folder.job.get("weights") if weights is None else weights
        if chosen == "given":
            raise InputError(f"the atlas shows a module of your own, {name}: pass it as model= from Python")
        network = load_model(name, chosen)
    else:
        network = open_model(model, "DEFAULT" if weights is None else weights)
    if weights_digest(network) != folder.job.get("weights_sha256"):
        own = "pass as model= the network with the atlas's weights"
        named = "pass those of the atlas as weights"
        raise InputError(
            f"the atlas in {folder.out} was made with other weights than those of this "
            f"{type(network).__name__}: {own if isinstance(model, nn.Module) else named}"
        )
    return network
