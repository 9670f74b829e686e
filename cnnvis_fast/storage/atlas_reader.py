"""What the folder of an atlas holds, read layer by layer for its page."""

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
"""Status of a tile that cannot be read or is of another job; running the atlas again makes it anew."""

# Not shown per unit: the same everywhere in an atlas, or shown in a form of their own.
_APART = {"job", "model", "weights", "layer", "channels", "config", "history"}

Scalar = float | int | str | bool | None


@dataclass
class Unit:
    """One tile: its record, {} where the file is damaged, its picture, whether it has an alpha map."""

    number: int
    record: Record
    picture: Image.Image | None
    alpha: bool

    @property
    def status(self) -> str:
        """As the record says it."""
        return str(self.record.get("status", DAMAGED))


@dataclass
class Layer:
    """One layer of an atlas.

    Attributes:
        name: canonical name.
        alias: `convN`, or empty.
        kind: class of the module, or empty where that is not written down.
        folder: of its tiles.
        order: place in the network.
        channels: that the layer has; None where no tile tells.
        numbers: of the units that have a file.
    """

    name: str
    alias: str
    kind: str
    folder: Path
    order: int
    channels: int | None
    numbers: list[int] = field(default_factory=list)


class Folder:
    """An atlas on disk, to be read.

    Args:
        out: its folder.

    Raises:
        InputError: there is no atlas in it.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        path = self.out / "job.json"
        if not path.is_file():
            raise InputError(
                f"no atlas in {str(out)!r}: expected a folder with a job.json, as the command atlas leaves it"
            )
        try:
            self.job: dict[str, Any] = dict(json.loads(path.read_text()))
            self.job["model"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: make the atlas again in another folder") from error
        self.store = Store(self.out, self.job)
        self._table = self._read_table()

    def layers(self) -> list[Layer]:
        """All layers that have a tile, in the order of the network."""
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
                Layer(name, row.get("alias", ""), row.get("kind", ""), path, place, channels, numbers)
            )
        return sorted(found, key=lambda layer: layer.order)  # stable: the unknown stay in natural order

    def units(self, layer: Layer) -> Iterator[Unit]:
        """Every unit of a layer with its picture, one at a time."""
        for number in layer.numbers:
            picture, record = read_tile(layer.folder / f"{number:04d}.png")
            alpha = (layer.folder / f"{number:04d}.alpha.png").is_file()
            ours = record.get("job") == self.store.digest and record.get("filter") == number
            yield Unit(number, record, picture, alpha) if ours else Unit(number, {}, None, alpha)

    def row(self, layer: Layer, unit: Unit) -> dict[str, Scalar]:
        """The scalars known of a unit: those of its record, and what else the table of scores says."""
        row: dict[str, Scalar] = {"filter": unit.number, "status": unit.status}
        for name, value in unit.record.items():
            if name in _APART or name in row:
                continue
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = "; ".join(value)
            if value is None or isinstance(value, str | bool | int | float):
                row[name] = value
        if not unit.record:
            return row  # the table still tells of a tile that was there
        for name, text in self._table.get((layer.name, unit.number), {}).items():
            if name and name not in _APART and name not in row:
                row[name] = _value(text)
        return row

    def _modules(self) -> list[dict[str, str]]:
        """The network's modules in order; none where an older version made the folder."""
        path = self.out / "layers.json"
        if not path.is_file():
            return []
        try:
            return [{**row, "name": row["name"]} for row in json.loads(path.read_text())]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: run the atlas again, which writes it anew") from error

    def _read_table(self) -> dict[tuple[str, int], dict[str, str]]:
        path = self.out / "scores.csv"
        if not path.is_file():
            return {}
        try:
            with path.open(newline="") as file:
                return {(row["layer"], int(row["filter"])): row for row in csv.DictReader(file)}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged: run the atlas again, which writes it anew") from error

    def _first_record(self, folder: Path, numbers: list[int]) -> Record:
        """The record of the first tile that can be read."""
        for number in numbers:
            _, record = read_tile(folder / f"{number:04d}.png")
            if record.get("job") == self.store.digest:
                return record
        return {}


def natural(text: str) -> list[tuple[int, str]]:
    """A key by which features.2 comes before features.10."""
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
