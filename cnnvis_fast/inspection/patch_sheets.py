"""Cuts patches out of their photos and draws a small sheet for each unit."""

from __future__ import annotations

import io
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..images.sheets import to_image
from ..networks.receptive_field_rules import WHOLE, Axis, Judgement
from ..progress import hidden
from .best_places import Top
from .patch_folder import PatchFolder

_TILE, _GAP, _AT_ONCE = 112, 4, 64  # pixels, pixels, units
_GRAY = (128, 128, 128)  # between patches, and where a receptive field reaches beyond the photo

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the network's input."""


def write_sheets(
    folder: PatchFolder,
    layer: str,
    top: Top,
    field: Judgement,
    read: Callable[[Path], Tensor | None],
    progress: bool | None,
) -> None:
    """Writes `0000.jpg`, ... and then `patches.json` of a layer.

    Args:
        folder: folder of the patches.
        layer: canonical name of the layer.
        top: the best places of its units.
        field: what the positions of its output see; None if unknown.
        read: returns a photo as the network reads it.
        progress: whether to show a bar; None shows it on a terminal.
    """
    if not _known(field):
        warnings.warn(
            f"the receptive field of {layer} is not known: its patches are whole photos", stacklevel=3
        )
    side = int(folder.job["size"])
    units = []
    for kept in top.to_json():
        units.append(
            [
                {
                    "image": folder.name(int(number)),
                    "number": int(number),
                    "score": float(f"{score:.6g}"),
                    "position": [int(row), int(column)],
                    "box": patch_box(field, int(row), int(column), side),
                }
                for score, number, row, column in kept
            ]
        )
    with tqdm(total=len(units), desc=f"{layer} patches", unit=" units", disable=hidden(progress)) as bar:
        for first in range(0, len(units), _AT_ONCE):
            some = units[first : first + _AT_ONCE]
            for unit, tiles in enumerate(_cut(folder, some, read), first):
                content = io.BytesIO()
                _sheet(tiles).save(content, "JPEG", quality=90)
                folder.write(folder.folder(layer) / f"{unit:04d}.jpg", content.getvalue())
            bar.update(len(some))
    content_of = {str(number): [_published(patch) for patch in unit] for number, unit in enumerate(units)}
    about = {"job": folder.job, "layer": layer, "images": folder.job["images"], "units": content_of}
    folder.write(folder.folder(layer) / "patches.json", about)


def _known(field: Judgement) -> bool:
    """Returns whether the window of every position is known."""
    if field is None or field == WHOLE:
        return field is not None
    return len(field.positions) == 2 and None not in (field.rows.start, field.columns.start)


def patch_box(field: Judgement, row: int, column: int, side: int) -> Box:
    """Returns the box that a position sees of a photo with that side; it may reach beyond the border.

    Along an axis on which the box is at least as large as the photo, it is the whole photo.
    """
    if field is None or not _known(field):
        return 0, 0, side, side
    top, bottom = _reach(field.rows, row, side)
    left, right = _reach(field.columns, column, side)
    return left, top, right, bottom


def _reach(axis: Axis, place: int, side: int) -> tuple[int, int]:
    if axis.size >= side:
        return 0, side
    first = int((axis.start or 0) + place * axis.jump)
    return first, first + int(axis.size)


def _published(patch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in patch.items() if name != "number"}


def _cut(
    folder: PatchFolder, units: Sequence[Sequence[dict[str, Any]]], read: Callable[[Path], Tensor | None]
) -> list[list[Image.Image]]:
    """Cuts the patches of some units into tiles, reading every photo once for all of them."""
    wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for unit, patches in enumerate(units):
        for rank, patch in enumerate(patches):
            wanted[patch["number"]].append((unit, rank))
    tiles: list[list[Image.Image]] = [[Image.new("RGB", (1, 1))] * len(patches) for patches in units]
    for number in sorted(wanted):
        pixels = read(folder.paths[number])
        if pixels is None:
            raise InputError(
                f"{folder.paths[number]} can no longer be read: restore it and run the same command again"
            )
        whole = to_image((pixels[0] * 255).round().byte().numpy()).convert("RGB")
        for unit, rank in wanted[number]:
            tiles[unit][rank] = _tile(whole, units[unit][rank]["box"])
    return tiles


def _tile(picture: Image.Image, box: Box) -> Image.Image:
    """Resizes a patch to fit a square; small ones are enlarged pixel by pixel."""
    left, top, right, bottom = box
    patch = Image.new("RGB", (right - left, bottom - top), _GRAY)
    patch.paste(picture, (-left, -top))
    scale = _TILE / max(patch.size)
    size = max(1, round(patch.width * scale)), max(1, round(patch.height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return patch.resize(size, method)


def _sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, math.ceil(len(tiles) / columns))
    step = _TILE + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), _GRAY)
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * step, index // columns * step))
    return sheet
