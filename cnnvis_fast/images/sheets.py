"""Contact sheets: many tiles on one picture, each with its filter's number; maps of numbers as tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError

SCALES = ("each", "common")
_LARGEST_SIDE, _SMALLEST_TILE = 4096, 32
_GAP = 4
_READABLE_TILE = 96  # side that small maps are enlarged to
_PAPER, _INK, _ALARM, _EDGE = (255, 255, 255), (60, 60, 60), (200, 0, 0), (200, 200, 200)
_BLUES, _REDS = ((33, 102, 172), (146, 197, 222)), ((244, 165, 130), (178, 24, 43))
_SIGNED = np.array([*_BLUES, (247, 247, 247), *_REDS])  # at -1, -1/2, 0, 1/2 and 1; ColorBrewer's RdBu


def contact_sheet(
    tiles: Sequence[Image.Image], labels: Sequence[str], alarms: Sequence[bool] | None = None
) -> Image.Image:
    """Tiles in reading order on a grid that is about square.

    Tiles are scaled down where the sheet would be more than 4096 pixels wide or high.

    Args:
        tiles: pictures of one size.
        labels: written below each tile.
        alarms: whose label is printed in red, by default nobody's.
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
    """A label that does not run into the next tile's."""
    shown = label
    while len(shown) > 2 and font.getlength(shown) > width:
        shown = shown[:-2] + "…"
    return shown


def status_sheet(tiles: Sequence[Image.Image], filters: Sequence[int], status: Sequence[str]) -> Image.Image:
    """Tiles with their filters' numbers; where the status is not ok, it follows the number in red."""
    pairs = zip(filters, status, strict=True)
    labels = [f"{number}" if word == "ok" else f"{number} {word}" for number, word in pairs]
    return contact_sheet(tiles, labels, [word != "ok" for word in status])


def value_sheet(values: np.ndarray, numbers: Sequence[int], scale: str) -> Image.Image:
    """Maps of numbers on one sheet, small ones enlarged pixel by pixel, see `value_tiles`.

    A map without contrast, or with numbers that are not finite, says so in red behind its number.
    """
    columns = math.ceil(math.sqrt(len(values)))
    room, shape = _LARGEST_SIDE // columns - _GAP, values.shape[-2:]
    wanted = max(-(-_READABLE_TILE // max(shape)), -(-_SMALLEST_TILE // min(shape)))
    factor = max(1, min(wanted, room // max(shape)))
    size = factor * shape[1], factor * shape[0]
    tiles = [tile.resize(size, Image.Resampling.NEAREST) for tile in value_tiles(values, scale)]
    return status_sheet(tiles, numbers, [value_status(value, scale) for value in values])


def value_tiles(values: np.ndarray, scale: str) -> list[Image.Image]:
    """Maps of numbers as pictures.

    Args:
        values: [N, H, W], or [N, 3, H, W] for colors; what is not finite is shown as 0.
        scale: "each" shows every map from its lowest number, black, to its highest, white; "common" shows
            all of them on one scale around 0: blue below, red above; colors around a medium gray. The
            outermost percent is shown alike, else a few specks would leave the rest pale: with "each" that
            of every map of 100 numbers and more, with "common" that of all maps together. Maps of a single
            number have a common scale in any case.

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
    """Says "constant" where a map on a scale of its own has no contrast, else "nonfinite" or "ok"."""
    if not np.isfinite(value).all():
        return "nonfinite"
    return "constant" if scale == "each" and value.size > 1 and value.min() == value.max() else "ok"


def _shades(value: np.ndarray, limit: float | None) -> np.ndarray:
    """One map, [H, W] or [3, H, W], as a picture [C, H, W] of 0 to 255: signed to a limit, or its range."""
    colors = value.ndim == 3
    if limit is None:
        few = value.shape[-2] * value.shape[-1] // 100  # a percent; nothing of small maps such as filters
        order = np.partition(value.ravel(), (few, value.size - 1 - few))
        low, high = order[few], order[-1 - few]
        if low == high:  # everywhere but at some specks
            low, high = value.min(), value.max()
        shown = 255 * np.clip((value - low) / (high - low or 1), 0, 1)
        return shown if colors else shown[None]
    signed = np.clip(value / limit, -1, 1)
    if colors:
        return 127.5 + 127.5 * signed
    stops = np.linspace(-1, 1, len(_SIGNED))
    return np.stack([np.interp(signed, stops, shades) for shades in _SIGNED.T])


def to_image(picture: np.ndarray) -> Image.Image:
    """A uint8 picture [C, H, W] as an image: RGB for three channels, else the first channel in gray."""
    if picture.shape[0] == 3:
        return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return Image.fromarray(np.ascontiguousarray(picture[0]))
