"""Writes the page of an atlas: OUT/index.html, and the files next to the tiles that it loads.

    OUT/index.html                    the page with its style and scripts
    OUT/units.js                      layers and units, a column per entry
    OUT/<layer>/units.js              curves, look-alikes and patches of one layer, loaded with its first unit
    OUT/<layer>/thumbnails-00.jpg ... sheets of 8 x 8 thumbnails

A page opened as a file may load scripts and pictures, but no data, so the data are scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from ..errors import InputError
from ..progress import hidden
from ..storage.atlas_reader import AtlasLayer, AtlasReader, AtlasUnit, Scalar
from ..storage.files import told, write_whole
from ..storage.job_folder import COLUMNS
from .look_alikes import descriptor, most_alike
from .thumbnails import PER_SIDE, SpriteWriter, remove_sheets

if TYPE_CHECKING:
    from torch import nn

    from ..images.photos import Photo

_LOG = logging.getLogger(__name__)
_SCRIPTS = ("model.js", "grid.js", "curve.js", "unit.js", "main.js")


def gallery(
    out: str | os.PathLike[str],
    photo: Photo | None = None,
    *,
    model: nn.Module | str | None = None,
    weights: Any = None,
    progress: bool | None = None,
) -> Path:
    """Writes a page for exploring an atlas; it needs no server and no internet connection.

    The page is a function of the folder's tiles: written again, it is the same.

    Args:
        out: the folder of an atlas.
        photo: photo for which to show every unit's activation map: a path, an image or an array.
        model: the network of the atlas, for the photo; by default the one that the atlas names.
        weights: weights of a network given by name; by default those of the atlas.
        progress: whether to show a progress bar; None shows it only on a terminal.

    Returns:
        The path of the page.

    Raises:
        InputError: (a ValueError) the folder holds no atlas, the folder cannot be written, or the network
            does not have the weights of the atlas.
    """
    folder = AtlasReader(Path(out))
    layers = folder.layers()
    maps = None
    if photo is not None:
        from .photo_maps import PhotoMaps

        maps = PhotoMaps(folder, layers, photo, model, weights)
    total = sum(len(layer.numbers) for layer in layers)
    summaries = []
    with (
        told(folder.out),
        tqdm(total=total, desc="gallery", unit=" units", disable=hidden(progress)) as bar,
    ):
        for layer in layers:
            summaries.append(_write_layer(folder, layer, bar))
        if maps is None:
            _remove_maps(folder, layers)
        else:
            maps.write(folder.out)
        page = {"layers": summaries, "perSide": PER_SIDE, "photo": None if maps is None else maps.about}
        write_whole(folder.out / "units.js", _script("atlas", page))
        write_whole(folder.out / "index.html", _page(folder, summaries).encode())
    path = folder.out / "index.html"
    _LOG.info("%s: %d units of %d layers", path, total, len(layers))
    return path


def _write_layer(folder: AtlasReader, layer: AtlasLayer, bar: Any) -> dict[str, Any]:
    """Writes the files of one layer; returns what the page needs from the start."""
    sprites = SpriteWriter(layer.folder, "thumbnails")
    rows: list[dict[str, Scalar]] = []
    histories: list[list[float | None] | None] = []
    alphas: list[int] = []
    seen: list[int] = []
    descriptors: list[np.ndarray] = []
    for unit in folder.units(layer):
        sprites.add(unit.picture)
        if unit.picture is not None:
            seen.append(len(rows))
            descriptors.append(descriptor(unit.picture))
        if unit.alpha:
            alphas.append(unit.number)
        rows.append(folder.row(layer, unit))
        histories.append(_history(unit))
        bar.update()
    sprites.close()
    alike: dict[int, list[int]] = {}
    if descriptors:
        nearest = most_alike(np.stack(descriptors))
        alike = {seen[row]: [seen[other] for other in others] for row, others in enumerate(nearest)}
    details = {
        "layer": layer.name,
        "histories": histories,
        "alike": [alike.get(row, []) for row in range(len(rows))],
        "alphas": alphas,
        "patches": _patches(layer),
    }
    write_whole(layer.folder / "units.js", _script("details", details))
    return {
        "name": layer.name,
        "alias": layer.alias,
        "kind": layer.kind,
        "folder": layer.folder.name,
        "channels": layer.channels,
        "columns": _columns(rows),
    }


def _columns(rows: list[dict[str, Scalar]]) -> dict[str, list[Scalar]]:
    """Returns a list per name, in the order of the table of scores."""
    found = dict.fromkeys(name for row in rows for name in row)
    names = [*(name for name in COLUMNS if name in found), *(name for name in found if name not in COLUMNS)]
    return {name: [row.get(name) for row in rows] for name in names}


def _history(unit: AtlasUnit) -> list[float | None] | None:
    history = unit.record.get("history")
    numbers = isinstance(history, list) and all(isinstance(v, float | int | None) for v in history)
    return history if numbers else None


def _patches(layer: AtlasLayer) -> dict[str, Any] | None:
    """Returns what `cnnvis-fast patches` wrote next to the tiles of a layer."""
    path = layer.folder / "patches" / "patches.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: remove it, or make the patches again") from error
    return found


def _remove_maps(folder: AtlasReader, layers: list[AtlasLayer]) -> None:
    """Removes what an earlier page with a photo left, because the new page shows none."""
    for layer in layers:
        remove_sheets(layer.folder, "maps")
    (folder.out / "photo.png").unlink(missing_ok=True)


def _script(function: str, value: Any) -> bytes:
    """Returns a script that passes a value to the page: JSON in plain ASCII, which is also JavaScript."""
    return f"cnnvis.{function}({json.dumps(value, separators=(',', ':'))});\n".encode()


def _page(folder: AtlasReader, layers: list[dict[str, Any]]) -> str:
    environment = Environment(
        loader=PackageLoader("cnnvis_fast.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    static = files("cnnvis_fast.page") / "static"
    style = (static / "gallery.css").read_text()
    script = "\n".join((static / name).read_text() for name in _SCRIPTS)
    return environment.get_template("index.html").render(
        job=folder.job,
        layers=layers,
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _digest(text: str) -> str:
    """Returns the digest of an inline script or style, as a content security policy spells it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
