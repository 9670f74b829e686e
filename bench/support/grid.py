"""Sheets of labeled pictures for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw


def grid(rows: Mapping[str, Mapping[str, Image.Image | None]], path: Path, tile: int = 112) -> None:
    """Writes a sheet of labeled rows of labeled tiles; None leaves a place empty."""
    line = 13
    columns = max(len(row) for row in rows.values())
    height = tile + 2 * line
    sheet = Image.new("RGB", (columns * (tile + 2), len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (title, row) in enumerate(rows.items()):
        top = index * height
        pen.text((1, top), title, fill="black")
        for column, (name, picture) in enumerate(row.items()):
            left = column * (tile + 2)
            width = pen.textlength(name)
            pen.text((left + tile - width, top + (line if column == 0 else 0)), name, fill="gray")
            if picture is not None:
                small = picture.convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
                sheet.paste(small, (left, top + 2 * line - 2))
    sheet.save(path, quality=85)
