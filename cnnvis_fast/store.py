"""A job's folder: tiles with provenance, and the tables and sheets that derive from them.

    OUT/job.json         what the pictures are a function of; the job's identity
    OUT/layers.json      the network's modules in order: name, alias, kind
    OUT/<layer>/0000.png one tile per filter, its record in a text chunk
    OUT/<layer>/sheet.png, OUT/scores.csv    derived from the tiles
    OUT/log.jsonl        times, host, batch: whatever is not a function of the job

Every file is written under a temporary name and renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from .errors import InputError
from .sheet import status_sheet, to_image

COLUMNS = (
    *("model", "layer", "filter", "status", "score_start", "score", "robust_score", "steps"),
    *("noise_score", "saturated", "high_frequency", "checkerboard", "border", "objective", "problems"),
)
_CHUNK = "cnnvis_fast"
_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every whole PNG
TILE = re.compile(r"\d{4,}\.png")

Record = dict[str, Any]


class Store:
    """The folder of one job; making one creates the folder or checks that it belongs to the same job.

    Args:
        out: the folder.
        job: what the pictures are a function of; JSON values only.

    Raises:
        InputError: the folder cannot be written, or holds another job.
    """

    def __init__(self, out: str | os.PathLike[str], job: Mapping[str, Any]) -> None:
        if not str(out):
            raise InputError("`out` is empty: pass a folder's name")
        self.out = Path(out)
        self.digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
        path = self.out / "job.json"
        with told(self.out):
            if path.exists():
                _refuse_other_job(path, job)
                return
            self.out.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(job, indent=2, sort_keys=True) + "\n").encode())

    def folder(self, layer: str) -> Path:
        """Where a layer's tiles lie."""
        return self.out / plain_name(layer)

    def finished(self, layer: str) -> set[int]:
        """The filters of a layer that have an intact tile of this job."""
        return {record["filter"] for _, record in self._tiles(layer)}

    def write(self, layer: str, channel: int, picture: np.ndarray, record: Record) -> None:
        """Writes one tile, uint8 [C, H, W], with its record."""
        info = PngImagePlugin.PngInfo()
        info.add_text(_CHUNK, json.dumps({"job": self.digest, **record}, sort_keys=True))
        content = io.BytesIO()
        to_image(picture).save(content, "PNG", pnginfo=info)
        folder = self.folder(layer)
        with told(self.out):
            folder.mkdir(exist_ok=True)
            write_whole(folder / f"{channel:04d}.png", content.getvalue())

    def write_layers(self, rows: list[Record]) -> None:
        """Writes down the network's modules, so that who reads the folder alone knows their order."""
        with told(self.out):
            write_whole(self.out / "layers.json", (json.dumps(rows, indent=2) + "\n").encode())

    def write_alpha(self, layer: str, channel: int, alpha: np.ndarray) -> None:
        """Writes where a tile matters, uint8 [1, H, W], beside it."""
        folder = self.folder(layer)
        with told(self.out):
            folder.mkdir(exist_ok=True)
            write_whole(folder / f"{channel:04d}.alpha.png", png(to_image(alpha)))

    def log(self, entry: Record) -> None:
        """Appends a line to the log."""
        with told(self.out), (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def records(self, layer: str) -> list[Record]:
        """The records of all tiles of a layer, by filter."""
        return [record for _, record in self._tiles(layer)]

    def sheet(self, layer: str) -> Image.Image:
        """All tiles of a layer on one picture; labels are red where the status is not ok."""
        tiles = self._tiles(layer)
        return status_sheet(
            [image for image, _ in tiles],
            [record["filter"] for _, record in tiles],
            [record["status"] for _, record in tiles],
        )

    def write_sheet(self, layer: str) -> None:
        """Writes the layer's sheet anew."""
        content = png(self.sheet(layer))
        with told(self.out):
            write_whole(self.folder(layer) / "sheet.png", content)

    def write_table(self) -> None:
        """Writes the table of all scores anew."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        folders = sorted(path for path in self.out.iterdir() if path.is_dir())
        writer.writerows(record for folder in folders for _, record in self._read(folder))
        with told(self.out):
            write_whole(self.out / "scores.csv", table.getvalue().encode())

    def _tiles(self, layer: str) -> list[tuple[Image.Image, Record]]:
        """Picture and record of every intact tile of a layer, by filter."""
        return [
            (image, record) for image, record in self._read(self.folder(layer)) if record["layer"] == layer
        ]

    def _read(self, folder: Path) -> list[tuple[Image.Image, Record]]:
        """The tiles of this job in a folder; a damaged one counts as missing and is made anew."""
        paths = [path for path in folder.glob("*.png") if TILE.fullmatch(path.name)]
        tiles = []
        for path in sorted(paths, key=lambda path: int(path.stem)):
            image, record = read_tile(path)
            fits = record.get("job") == self.digest and record.get("filter") == int(path.stem)
            if image is not None and fits:
                tiles.append((image, record))
        return tiles


def plain_name(layer: str) -> str:
    """A layer's name as a file name; one that is no plain file name is spelt anew, with a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", layer).lstrip(".")
    if plain != layer:
        plain += "-" + hashlib.sha256(layer.encode()).hexdigest()[:8]
    return plain


def read_tile(path: Path) -> tuple[Image.Image | None, Record]:
    """A tile and its record; (None, {}) where the file is damaged anywhere, checksums and end included."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            record = json.loads(image.info.get(_CHUNK, "{}"))
    except (OSError, SyntaxError, ValueError):
        return None, {}
    whole = content.endswith(_END) and isinstance(record, dict)
    return (image, record) if whole else (None, {})


def _refuse_other_job(path: Path, job: Mapping[str, Any]) -> None:
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: pass another folder as out, or remove this one") from error
    if other := difference(before, job):
        name, was, now = other
        raise InputError(
            f"{path.parent} holds another job: its {name} is {was!r}, yours is {now!r}; pass another folder "
            "as out, or the same options"
        )


def difference(before: Any, after: Any) -> tuple[str, Any, Any] | None:
    """Name and both values of the first part in which two jobs differ, the preset before others."""
    old, new = _flat(before), _flat(json.loads(json.dumps(after)))
    for name in sorted({*old, *new}, key=lambda name: (name != "config.preset", name)):
        if old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@contextlib.contextmanager
def told(out: Path, what: str = "folder") -> Iterator[None]:
    """Says in one sentence that a folder, or a file, cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {out} ({error.strerror}): make room or pass another {what} as out"
        ) from error


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix or "content": value}
    parts = (_flat(inner, f"{prefix}.{key}" if prefix else key) for key, inner in value.items())
    return {name: inner for part in parts for name, inner in part.items()}


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that its name never stands for half of it.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
