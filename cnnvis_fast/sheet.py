"""Contact sheets: many tiles on one picture, each with its filter's number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LARGEST_SIDE, _SMALLEST_TILE = 4096, 32
_GAP = 4
_PAPER, _INK, _ALARM = (255, 255, 255), (60, 60, 60), (200, 0, 0)


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
    side = max(tile.width for tile in tiles) if tiles else _SMALLEST_TILE
    side = max(_SMALLEST_TILE, min(side, _LARGEST_SIDE // columns - _GAP))
    letter = max(9, min(16, side // 8))
    font = ImageFont.load_default(size=letter)
    height = side + letter + 2 * _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = _GAP + index % columns * (side + _GAP), _GAP + index // columns * height
        small = tile if tile.width == side else tile.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small.convert("RGB"), (left, top))
        alarm = bool(alarms and alarms[index])
        pen.text((left + 1, top + side + 1), label, font=font, fill=_ALARM if alarm else _INK)
    return sheet


def status_sheet(tiles: Sequence[Image.Image], filters: Sequence[int], status: Sequence[str]) -> Image.Image:
    """Tiles with their filters' numbers; where the status is not ok, it follows the number in red."""
    pairs = zip(filters, status, strict=True)
    labels = [f"{number}" if word == "ok" else f"{number} {word}" for number, word in pairs]
    return contact_sheet(tiles, labels, [word != "ok" for word in status])


def to_image(picture: np.ndarray) -> Image.Image:
    """A uint8 picture [C, H, W] as an image: RGB for three channels, else the first channel in gray."""
    if picture.shape[0] == 3:
        return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return Image.fromarray(np.ascontiguousarray(picture[0]))
