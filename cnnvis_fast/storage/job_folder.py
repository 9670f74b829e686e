"""Writes and resumes a job's folder: tiles with their records, and the tables and sheets made from them.

    OUT/job.json         the job's identity: what the pictures are a function of
    OUT/layers.json      the network's modules in order: name, alias, kind
    OUT/<layer>/0000.png one tile per filter, with its record in a text chunk
    OUT/<layer>/sheet.png, OUT/scores.csv    derived from the tiles; can be rewritten at any time
    OUT/log.jsonl        times, host, batch: what is not a function of the job
    OUT/.lock            the writer's lock, while there is one

Every file is written under a temporary name, flushed and renamed, so a reader never sees a partial file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError
from ..images.sheets import status_sheet
from .files import append_line, check_room, plain_name, png, read_limited, remove_leftovers, told, write_whole
from .lock import folder_lock
from .tiles import Parcel, Record, TileWriter, alpha_name, job_digest, largest_tile, read_tile, whole_picture

COLUMNS = (
    *("model", "layer", "filter", "status", "score_start", "score", "robust_score", "steps"),
    *("noise_score", "saturated", "high_frequency", "checkerboard", "border", "objective", "problems"),
)
TILE = re.compile(r"\d{4,9}\.png", re.ASCII)
_LARGEST_JOB, _LARGEST_LOG = 2**20, 2**24
_LARGEST_SHEET, _TABLE_ROW = 4100 * 4600 * 3, 1024


class Store(TileWriter):
    """The folder of one job.

    Args:
        out: the folder; it need not exist yet.
        job: what the pictures are a function of; JSON values only.

    Raises:
        InputError: the folder holds another job, or `out` is a file.
    """

    def __init__(self, out: str | os.PathLike[str], job: Mapping[str, Any]) -> None:
        if not str(out):
            raise InputError("`out` is empty: pass a folder's name")
        self.out = Path(out)
        self._job = job
        self.digest = job_digest(job)
        with told(self.out):
            if self.out.is_file():
                raise InputError(f"{self.out} is a file: pass a folder as out")
            self._refuse_other_job()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Store]:
        """Creates and locks the folder, and removes what killed writers left.

        Raises:
            InputError: the folder cannot be written, holds another job, or another process is writing to it.
        """
        with contextlib.ExitStack() as stack:
            with told(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(folder_lock(self.out))
                remove_leftovers(self.out)
                if not self._refuse_other_job():
                    content = json.dumps(self._job, indent=2, sort_keys=True) + "\n"
                    write_whole(self.out / "job.json", content.encode())
            yield self

    def check_room(self, layers: Mapping[str, tuple[int, int]]) -> None:
        """Refuses to start what the disk has no room for.

        Args:
            layers: per layer, tiles that are to be made and tiles that will be there.

        Raises:
            InputError: there is less room than tiles, sheets and table can take.
        """
        size, channels = int(self._job["config"]["size"]), len(self._job["mean"])
        tile, needed, files, count = largest_tile(channels, size), 0, 4, 0
        map_of_it = largest_tile(1, size) if self._alpha else 0
        for missing, total in layers.values():
            # While a sheet is replaced the old one is there too.
            needed += (
                missing * (tile + map_of_it) + 2 * min(total * tile, _LARGEST_SHEET) + total * _TABLE_ROW
            )
            files, count = files + missing * (2 if self._alpha else 1) + 1, count + missing
        if count:
            check_room(self.out, needed, files, "one picture" if count == 1 else f"{count} pictures")

    def folder(self, layer: str) -> Path:
        """Returns the folder of a layer's tiles."""
        return self.out / plain_name(layer)

    def finished(self, layer: str) -> set[int]:
        """Returns the filters with an intact tile of this job, and an alpha map if the job makes them."""
        found = {record["filter"] for _, record in self._tiles(layer)}
        if self._alpha:
            folder = self.folder(layer)
            found = {channel for channel in found if whole_picture(folder / alpha_name(channel))}
        return found

    @property
    def _alpha(self) -> bool:
        return bool(self._job["config"].get("alpha"))

    def keep(self, layer: str, name: str, content: bytes) -> None:
        """Writes one file of a layer."""
        folder = self.folder(layer)
        with told(self.out):
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise InputError(
                    f"{folder} is a link: remove it, because tiles are written only inside {self.out}"
                )
            write_whole(folder / name, content)

    def unpack(self, parcel: Parcel) -> None:
        """Writes the files of a parcel."""
        for name, content in parcel.files:
            self.keep(parcel.layer, name, content)

    def write_layers(self, rows: Sequence[Record]) -> None:
        """Writes the network's modules, so that readers of the folder know their order."""
        with told(self.out):
            write_whole(self.out / "layers.json", (json.dumps(list(rows), indent=2) + "\n").encode())

    def log(self, entry: Record) -> None:
        """Appends a line to the log."""
        with told(self.out):
            append_line(self.out / "log.jsonl", json.dumps(entry))

    def pace(self, layers: Iterable[str]) -> float | None:
        """Returns the seconds per picture of these layers so far, from the log; None if it has none."""
        chosen, seconds, pictures = set(layers), 0.0, 0
        with contextlib.suppress(OSError):
            for line in read_limited(self.out / "log.jsonl", _LARGEST_LOG).splitlines():
                # A line that is cut off or not ours is skipped.
                with contextlib.suppress(Exception):
                    entry = json.loads(line)
                    if entry["layer"] in chosen and 0 <= entry["seconds"] < 1e9:
                        pictures, seconds = pictures + len(entry["filters"]), seconds + entry["seconds"]
        return seconds / pictures if pictures else None

    def records(self, layer: str) -> list[Record]:
        """Returns the records of all tiles of a layer, by filter."""
        return [record for _, record in self._tiles(layer)]

    def sheet(self, layer: str) -> Image.Image:
        """Returns one image with all tiles of a layer; a label is red if the status is not ok."""
        tiles = self._tiles(layer)
        return status_sheet(
            [image for image, _ in tiles],
            [record["filter"] for _, record in tiles],
            [record["status"] for _, record in tiles],
        )

    def write_sheet(self, layer: str) -> None:
        """Rewrites the layer's sheet."""
        self.keep(layer, "sheet.png", png(self.sheet(layer)))

    def write_table(self) -> None:
        """Rewrites the table of all scores."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        folders = sorted(path for path in self.out.iterdir() if path.is_dir())
        writer.writerows(record for folder in folders for _, record in self._read(folder))
        with told(self.out):
            write_whole(self.out / "scores.csv", table.getvalue().encode())

    def counts(self, layers: Iterable[str]) -> Counter[str]:
        """Counts the tiles of these layers by status; quick, because it reads the table and no picture."""
        chosen = set(layers)
        with contextlib.suppress(OSError, ValueError, csv.Error):  # a lost table is rewritten later
            rows = csv.DictReader(io.StringIO((self.out / "scores.csv").read_text("utf-8")))
            return Counter(str(row.get("status")) for row in rows if row.get("layer") in chosen)
        return Counter()

    def _tiles(self, layer: str) -> list[tuple[Image.Image, Record]]:
        """Returns picture and record of every intact tile of a layer, by filter."""
        return [
            (image, record) for image, record in self._read(self.folder(layer)) if record["layer"] == layer
        ]

    def _read(self, folder: Path) -> list[tuple[Image.Image, Record]]:
        """Returns the tiles of this job in a folder; a damaged one is left out, and will be made again."""
        paths = [path for path in folder.glob("*.png") if TILE.fullmatch(path.name)]
        tiles = []
        for path in sorted(paths, key=lambda path: int(path.stem)):
            image, record = read_tile(path)
            fits = record.get("job") == self.digest and record.get("filter") == int(path.stem)
            if image is not None and fits:
                tiles.append((image, record))
        return tiles

    def _refuse_other_job(self) -> bool:
        """Returns whether the folder holds this job; False if it holds none yet. Refuses another job."""
        path = self.out / "job.json"
        if not path.exists():
            return False
        damaged = f"{path} is damaged: pass another folder as out, or remove this one"
        if not path.is_file() or path.stat().st_size > _LARGEST_JOB:
            raise InputError(damaged)
        try:
            others = differences(json.loads(path.read_bytes()), self._job)
        except (ValueError, RecursionError) as error:
            raise InputError(damaged) from error
        if others:
            raise InputError(f"{path.parent} holds {_other_job(others)}")
        return True


def differences(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Returns both values of every entry in which two jobs differ, by its name, the preset first."""
    old, new = _flat(before), _flat(json.loads(json.dumps(after)))
    names = sorted({*old, *new}, key=lambda name: (name != "config.preset", name))
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _other_job(others: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns what a folder holds instead of the job, given where they differ, and what to do about it."""
    name, (was, now) = next(iter(others.items()))
    if list(others) == ["weights_sha256"]:
        return (
            f"an atlas of other weights ({_short(str(was)[:8])}) than this network's ({str(now)[:8]}): "
            "load the same weights, or pass another folder as out"
        )
    found = f"another job: its {_short(name)} is {_short(repr(was))}, yours is {_short(repr(now))}; "
    if list(others) == ["config.threads"] and isinstance(was, int):
        return f"{found}resume with threads={was} of atlas (--threads {was}), or pass another folder as out"
    return f"{found}pass another folder as out, or the same options"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix or "content": value}
    parts = (_flat(inner, f"{prefix}.{key}" if prefix else key) for key, inner in value.items())
    return {name: inner for part in parts for name, inner in part.items()}


def _short(text: str) -> str:
    """Returns text from a foreign file for use in a message, shortened and without terminal commands."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 100 else f"{text[:100]}..."
