"""Draws contact sheets, many labeled tiles in one image, and turns maps of numbers into tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError

SCALES = ("each", "common")
_LARGEST_SIDE, _SMALLEST_TILE = 4096, 32
_GAP = 4
_READABLE_TILE = 96  # side in pixels to which small maps are enlarged
_PAPER, _INK, _ALARM, _EDGE = (255, 255, 255), (60, 60, 60), (200, 0, 0), (200, 200, 200)
_BLUES, _REDS = ((33, 102, 172), (146, 197, 222)), ((244, 165, 130), (178, 24, 43))
_SIGNED = np.array([*_BLUES, (247, 247, 247), *_REDS])  # at -1, -1/2, 0, 1/2 and 1; ColorBrewer's RdBu


def contact_sheet(
    tiles: Sequence[Image.Image], labels: Sequence[str], alarms: Sequence[bool] | None = None
) -> Image.Image:
    """Arranges tiles in reading order on a roughly square grid.

    Tiles are shrunk if the sheet would otherwise be more than 4096 pixels wide or high.

    Args:
        tiles: images of one size.
        labels: texts written below the tiles.
        alarms: whether each label is printed in red; by default none is.
    """
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, math.ceil(len(tiles) / columns))
    full = tiles[0].size if tiles else (_SMALLEST_TILE, _SMALLEST_TILE)
    wide = max(_SMALLEST_TILE, min(full[0], (_LARGEST_SIDE // columns - _GAP) * full[0] // max(full)))
    size = wide, max(1, round(full[1] * wide / full[0]))
    letter = max(9, min(16, wide // 8))
    font = ImageFont.load_default(size=letter)
    height = size[1] + letter + 2 * _GAP
    sheet = Image.new("RGB", (columns * (wide + _GAP) + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = _GAP + index % columns * (wide + _GAP), _GAP + index // columns * height
        small = tile if tile.size == size else tile.resize(size, Image.Resampling.LANCZOS)
        pen.rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=_EDGE)
        sheet.paste(small.convert("RGB"), (left, top))
        alarm = bool(alarms and alarms[index])
        pen.text(
            (left + 1, top + size[1] + 1),
            _clipped(label, font, size[0]),
            font=font,
            fill=_ALARM if alarm else _INK,
        )
    return sheet


def _clipped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shortens a label so that it does not run into the next tile's."""
    shown = label
    while len(shown) > 2 and font.getlength(shown) > width:
        shown = shown[:-2] + "…"
    return shown


def status_sheet(tiles: Sequence[Image.Image], filters: Sequence[int], status: Sequence[str]) -> Image.Image:
    """Arranges tiles with their filters' numbers; a status other than ok follows the number in red."""
    pairs = zip(filters, status, strict=True)
    labels = [f"{number}" if word == "ok" else f"{number} {word}" for number, word in pairs]
    return contact_sheet(tiles, labels, [word != "ok" for word in status])


def value_sheet(values: np.ndarray, numbers: Sequence[int], scale: str) -> Image.Image:
    """Draws maps of numbers on one sheet, enlarging small ones pixel by pixel.

    If a map has no contrast or holds numbers that are not finite, its label says so in red.

    Args:
        values: [N, H, W], or [N, 3, H, W] for colors.
        numbers: the number of each map, for its label.
        scale: "each" shows every map on its own scale, "common" all of them on one scale around 0.
    """
    columns = math.ceil(math.sqrt(len(values)))
    room, shape = _LARGEST_SIDE // columns - _GAP, values.shape[-2:]
    wanted = max(-(-_READABLE_TILE // max(shape)), -(-_SMALLEST_TILE // min(shape)))
    factor = max(1, min(wanted, room // max(shape)))
    size = factor * shape[1], factor * shape[0]
    tiles = [tile.resize(size, Image.Resampling.NEAREST) for tile in value_tiles(values, scale)]
    return status_sheet(tiles, numbers, [value_status(value, scale) for value in values])


def value_tiles(values: np.ndarray, scale: str) -> list[Image.Image]:
    """Turns maps of numbers into images.

    Args:
        values: [N, H, W], or [N, 3, H, W] for colors; numbers that are not finite are shown as 0.
        scale: "each" shows every map from its lowest number (black) to its highest (white); "common" shows
            all of them on one scale around 0: blue below, red above, or colors around a medium gray. The
            outermost percent is clipped, since a few specks would otherwise leave the rest pale: with "each"
            that of every map of 100 numbers or more, with "common" that of all maps together. Maps of a
            single number always share a common scale.

    Raises:
        InputError: there is no such scale.
    """
    if scale not in SCALES:
        raise InputError(f"`scale` must be one of {', '.join(SCALES)}, got {scale!r}")
    finite = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    limit = None
    if scale == "common" or values[0].size == 1:
        size = np.abs(finite)
        limit = float(np.quantile(size, 0.99)) or float(size.max()) or 1.0
    shown = (_shades(value.astype(np.float64), limit) for value in finite)
    return [to_image(np.round(picture).astype(np.uint8)) for picture in shown]


def value_status(value: np.ndarray, scale: str) -> str:
    """Returns "nonfinite", "constant" for a map that has no contrast on its own scale, or "ok"."""
    if not np.isfinite(value).all():
        return "nonfinite"
    return "constant" if scale == "each" and value.size > 1 and value.min() == value.max() else "ok"


def _shades(value: np.ndarray, limit: float | None) -> np.ndarray:
    """Scales a map, [H, W] or [3, H, W], to 0 to 255 [C, H, W]: around 0 up to a limit, or over its range."""
    colors = value.ndim == 3
    if limit is None:
        few = value.shape[-2] * value.shape[-1] // 100  # one percent; 0 for small maps such as filters
        order = np.partition(value.ravel(), (few, value.size - 1 - few))
        low, high = order[few], order[-1 - few]
        if low == high:  # constant except for a few specks
            low, high = value.min(), value.max()
        shown = 255 * np.clip((value - low) / (high - low or 1), 0, 1)
        return shown if colors else shown[None]
    signed = np.clip(value / limit, -1, 1)
    if colors:
        return 127.5 + 127.5 * signed
    stops = np.linspace(-1, 1, len(_SIGNED))
    return np.stack([np.interp(signed, stops, shades) for shades in _SIGNED.T])


def to_image(picture: np.ndarray) -> Image.Image:
    """Converts a uint8 array [C, H, W] to an image: RGB for three channels, else the first one in gray."""
    if picture.shape[0] == 3:
        return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return Image.fromarray(np.ascontiguousarray(picture[0]))
