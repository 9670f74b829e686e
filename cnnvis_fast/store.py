"""A job's folder: tiles with provenance, and the tables and sheets that derive from them.

    OUT/job.json         what the pictures are a function of; the job's identity
    OUT/<layer>/0000.png one tile per filter, its record in a text chunk
    OUT/<layer>/sheet.png, OUT/scores.csv    derived from the tiles
    OUT/log.jsonl        times, host, batch: whatever is not a function of the job

Every file is written under a temporary name and renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from .errors import InputError
from .sheet import contact_sheet, to_image

COLUMNS = (
    *("model", "layer", "filter", "status", "score_start", "score", "robust_score", "steps"),
    *("saturated", "high_frequency"),
)
_CHUNK = "cnnvis_fast"
_TILE = re.compile(r"\d{4,}\.png")

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
        self.out = Path(out)
        self.digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
        path = self.out / "job.json"
        try:
            if path.exists():
                _refuse_other_job(self.out, json.loads(path.read_text()), job)
                return
            self.out.mkdir(parents=True, exist_ok=True)
            _write_whole(path, (json.dumps(job, indent=2, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise InputError(
                f"cannot write to {self.out} ({error.strerror}): pass another folder as out"
            ) from error
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged: pass another folder as out, or remove this one") from error

    def folder(self, layer: str) -> Path:
        """Where a layer's tiles lie; characters that a module's name should not have become `_`."""
        return self.out / (re.sub(r"[^A-Za-z0-9._-]", "_", layer).lstrip(".") or "_")

    def finished(self, layer: str) -> set[int]:
        """The filters of a layer that have an intact tile of this job."""
        return {number for number, _, record in self._tiles(layer) if record["job"] == self.digest}

    def write(self, layer: str, channel: int, picture: np.ndarray, record: Record) -> None:
        """Writes one tile, uint8 [C, H, W], with its record."""
        info = PngImagePlugin.PngInfo()
        info.add_text(_CHUNK, json.dumps({"job": self.digest, **record}, sort_keys=True))
        content = io.BytesIO()
        to_image(picture).save(content, "PNG", pnginfo=info)
        folder = self.folder(layer)
        folder.mkdir(exist_ok=True)
        _write_whole(folder / f"{channel:04d}.png", content.getvalue())

    def log(self, entry: Record) -> None:
        """Appends a line to the log."""
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def records(self, layer: str | None = None) -> list[Record]:
        """The records of all tiles, of one layer or of all, in order."""
        if layer is not None:
            return [record for _, _, record in self._tiles(layer)]
        folders = sorted(path.name for path in self.out.iterdir() if path.is_dir())
        return [record for name in folders for _, _, record in self._tiles(name)]

    def sheet(self, layer: str) -> Image.Image:
        """All tiles of a layer on one picture; labels are red where the status is not ok."""
        images, labels, alarms = [], [], []
        for number, image, record in self._tiles(layer):
            images.append(image)
            fine = record["status"] == "ok"
            labels.append(f"{number}" if fine else f"{number} {record['status']}")
            alarms.append(not fine)
        return contact_sheet(images, labels, alarms)

    def derive(self, layer: str) -> None:
        """Writes the layer's sheet and the table of all scores anew."""
        content = io.BytesIO()
        self.sheet(layer).save(content, "PNG")
        _write_whole(self.folder(layer) / "sheet.png", content.getvalue())
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records())
        _write_whole(self.out / "scores.csv", table.getvalue().encode())

    def _tiles(self, layer: str) -> list[tuple[int, Image.Image, Record]]:
        """Number, picture and record of every intact tile of a layer, by number."""
        folder = self.folder(layer)
        names = sorted(path for path in folder.glob("*.png") if _TILE.fullmatch(path.name))
        found: list[tuple[int, Image.Image, Record]] = []
        for path in sorted(names, key=lambda path: int(path.stem)):
            try:
                with Image.open(path) as image:
                    image.load()
                    record = json.loads(image.info.get(_CHUNK, "null"))
            except (OSError, UnidentifiedImageError, SyntaxError, json.JSONDecodeError):
                continue  # a damaged tile counts as missing and is made anew
            if isinstance(record, dict) and "job" in record:
                found.append((int(path.stem), image, record))
        return found


def _refuse_other_job(out: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    before, after = _flat(found), _flat(json.loads(json.dumps(wanted)))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            raise InputError(
                f"{out} holds another job: its {name} is {before.get(name)!r}, yours is {after.get(name)!r}; "
                "pass another folder as out, or the same options"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix or "content": value}
    parts = (_flat(inner, f"{prefix}.{key}" if prefix else key) for key, inner in value.items())
    return {name: inner for part in parts for name, inner in part.items()}


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
