"""Arranges thumbnails on a few sheets, so that the page loads few files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ..storage.files import write_whole

PER_SIDE = 8
"""Thumbnails in a row and in a column of a sheet; units.js passes it to the page."""

LARGEST = 96
"""Side in pixels of the largest thumbnail: 4,224 of them, decoded, take 156 MB."""


class SpriteWriter:
    """Writes sheets of thumbnails as pictures are added; holds one sheet at a time.

    Args:
        folder: folder of the sheets, which are named `<stem>-00.jpg`, `<stem>-01.jpg` and so on.
        stem: beginning of the file names.
        lossless: whether to write PNG instead of JPEG, for maps.
    """

    def __init__(self, folder: Path, stem: str, lossless: bool = False) -> None:
        self._folder, self._stem, self._suffix = folder, stem, "png" if lossless else "jpg"
        self._count, self._side = 0, 0
        self._sheet: Image.Image | None = None

    def add(self, picture: Image.Image | None) -> None:
        """Puts the next picture on the sheet; None leaves a gap."""
        place = self._count % PER_SIDE**2
        self._count += 1
        if picture is not None:
            self._side = self._side or min(LARGEST, max(picture.size))
            if self._sheet is None:
                width = PER_SIDE * self._side
                self._sheet = Image.new("RGB", (width, width), (128, 128, 128))
            left, top = place % PER_SIDE * self._side, place // PER_SIDE * self._side
            self._sheet.paste(_thumbnail(picture, self._side), (left, top))
        if place == PER_SIDE**2 - 1:
            self._write()

    def close(self) -> None:
        """Writes the last sheet and removes later ones that a longer layer left before."""
        if self._count % PER_SIDE**2:
            self._write()
        sheets = -(-self._count // PER_SIDE**2)
        remove_sheets(self._folder, self._stem, sheets)

    def _write(self) -> None:
        number = (self._count - 1) // PER_SIDE**2
        sheet = self._sheet or Image.new("RGB", (PER_SIDE, PER_SIDE), (128, 128, 128))
        content = io.BytesIO()
        if self._suffix == "png":
            sheet.save(content, "PNG")
        else:
            sheet.save(content, "JPEG", quality=85)
        write_whole(self._folder / f"{self._stem}-{number:02d}.{self._suffix}", content.getvalue())
        self._sheet = None


def remove_sheets(folder: Path, stem: str, first: int = 0) -> None:
    """Removes the sheets of a stem from the number `first` on."""
    for path in folder.glob(f"{stem}-*.*"):
        number = path.stem.removeprefix(f"{stem}-")
        if number.isdecimal() and int(number) >= first and path.suffix in (".png", ".jpg"):
            path.unlink()


def _thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Returns a picture scaled to fit a square; small ones are enlarged pixel by pixel."""
    width, height = picture.size
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = picture.convert("RGB")
    if size != picture.size:
        small = small.resize(size, method)
    if size == (side, side):
        return small
    square = Image.new("RGB", (side, side), (128, 128, 128))
    square.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square
