"""Reads the folder of an atlas, layer by layer, for its page."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError
from .files import plain_name
from .job_folder import TILE, Store
from .tiles import Record, read_tile

DAMAGED = "damaged"
"""Status of a tile that cannot be read or is of another job; running the atlas again replaces it."""

# Entries not shown per unit: the same everywhere in an atlas, or shown in another form.
_NOT_SHOWN = {"job", "model", "weights", "layer", "channels", "config", "history"}

Scalar = float | int | str | bool | None


@dataclass
class AtlasUnit:
    """One tile of an atlas.

    Attributes:
        number: number of the filter.
        record: the tile's record; {} if the file is damaged.
        picture: the picture; None if the file cannot be read.
        alpha: whether the tile has an alpha map.
    """

    number: int
    record: Record
    picture: Image.Image | None
    alpha: bool

    @property
    def status(self) -> str:
        """Status in the record."""
        return str(self.record.get("status", DAMAGED))


@dataclass
class AtlasLayer:
    """One layer of an atlas.

    Attributes:
        name: canonical name.
        alias: `convN`, or empty.
        kind: class of the module, or empty if the folder does not say it.
        folder: folder of the layer's tiles.
        order: position in the network.
        channels: number of channels of the layer; None if no tile says it.
        numbers: numbers of the units that have a file.
    """

    name: str
    alias: str
    kind: str
    folder: Path
    order: int
    channels: int | None
    numbers: list[int] = field(default_factory=list)


class AtlasReader:
    """Reads an atlas on disk.

    Args:
        out: the atlas's folder.

    Raises:
        InputError: the folder holds no atlas.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        path = self.out / "job.json"
        if not path.is_file():
            raise InputError(
                f"no atlas in {str(out)!r}: expected a folder with a job.json, which the command atlas writes"
            )
        try:
            self.job: dict[str, Any] = dict(json.loads(path.read_text()))
            self.job["model"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: make the atlas again in another folder") from error
        self.store = Store(self.out, self.job)
        self._table = self._read_table()

    def layers(self) -> list[AtlasLayer]:
        """Returns all layers that have a tile, in the order of the network."""
        modules = self._modules()
        places = {plain_name(row["name"]): (place, row) for place, row in enumerate(modules)}
        found = []
        for path in sorted(self.out.iterdir(), key=lambda path: natural(path.name)):
            numbers = sorted(int(tile.stem) for tile in _tiles(path)) if path.is_dir() else []
            if not numbers:
                continue
            place, row = places.get(path.name, (len(modules), {}))
            first = self._first_record(path, numbers)
            name = row.get("name") or str(first.get("layer", path.name))
            channels = first.get("channels")
            found.append(
                AtlasLayer(name, row.get("alias", ""), row.get("kind", ""), path, place, channels, numbers)
            )
        return sorted(found, key=lambda layer: layer.order)  # stable: unknown layers stay in natural order

    def units(self, layer: AtlasLayer) -> Iterator[AtlasUnit]:
        """Yields every unit of a layer with its picture."""
        for number in layer.numbers:
            picture, record = read_tile(layer.folder / f"{number:04d}.png")
            alpha = (layer.folder / f"{number:04d}.alpha.png").is_file()
            ours = record.get("job") == self.store.digest and record.get("filter") == number
            yield AtlasUnit(number, record if ours else {}, picture if ours else None, alpha)

    def row(self, layer: AtlasLayer, unit: AtlasUnit) -> dict[str, Scalar]:
        """Returns the scalars known about a unit: those of its record, then those of the table of scores."""
        row: dict[str, Scalar] = {"filter": unit.number, "status": unit.status}
        for name, value in unit.record.items():
            if name in _NOT_SHOWN or name in row:
                continue
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = "; ".join(value)
            if value is None or isinstance(value, str | bool | int | float):
                row[name] = value
        if not unit.record:
            return row  # the table may still describe the tile that was there before
        for name, text in self._table.get((layer.name, unit.number), {}).items():
            if name and name not in _NOT_SHOWN and name not in row:
                row[name] = _value(text)
        return row

    def _modules(self) -> list[dict[str, str]]:
        """Returns the network's modules in order; none if an older version made the folder."""
        path = self.out / "layers.json"
        if not path.is_file():
            return []
        try:
            return [{**row, "name": row["name"]} for row in json.loads(path.read_text())]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: run the atlas again, which rewrites it") from error

    def _read_table(self) -> dict[tuple[str, int], dict[str, str]]:
        path = self.out / "scores.csv"
        if not path.is_file():
            return {}
        try:
            with path.open(newline="") as file:
                return {(row["layer"], int(row["filter"])): row for row in csv.DictReader(file)}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged: run the atlas again, which rewrites it") from error

    def _first_record(self, folder: Path, numbers: list[int]) -> Record:
        """Returns the record of the first tile that can be read."""
        for number in numbers:
            _, record = read_tile(folder / f"{number:04d}.png")
            if record.get("job") == self.store.digest:
                return record
        return {}


def natural(text: str) -> list[tuple[int, str]]:
    """Returns a sort key by which features.2 comes before features.10."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _tiles(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if TILE.fullmatch(path.name)]


def _value(text: str | None) -> Scalar:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else None
