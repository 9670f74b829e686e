"""Writes and reads tiles: finished pictures as PNG files that contain their records."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from ..images.sheets import to_image
from .files import png

_CHUNK = "cnnvis_fast"
_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every whole PNG
_LARGEST_SIDE = 8192  # the largest `Config.size`
_LARGEST_FILE = 4 * _LARGEST_SIDE**2

Record = dict[str, Any]


class TileWriter(ABC):
    """Takes finished pictures as files, into a folder or into memory.

    Attributes:
        digest: digest of the job; every tile carries it.
    """

    digest: str

    @abstractmethod
    def keep(self, layer: str, name: str, content: bytes) -> None:
        """Stores one file of a layer."""

    def write(self, layer: str, channel: int, picture: np.ndarray, record: Record) -> None:
        """Stores one tile, uint8 [C, H, W], with its record."""
        info = PngImagePlugin.PngInfo()
        info.add_text(_CHUNK, json.dumps({"job": self.digest, **record}, sort_keys=True))
        content = io.BytesIO()
        to_image(picture).save(content, "PNG", pnginfo=info)
        self.keep(layer, tile_name(channel), content.getvalue())

    def write_alpha(self, layer: str, channel: int, alpha: np.ndarray) -> None:
        """Stores the map of where a tile matters, uint8 [1, H, W], next to the tile."""
        self.keep(layer, alpha_name(channel), png(to_image(alpha)))


class Parcel(TileWriter):
    """The files of some tiles of one layer, from the process that made them to the one that writes them.

    Attributes:
        layer: canonical name.
        filters: filters that the tiles show.
        files: names and contents, in the order in which they must be written.
        facts: entries for the log: host, device, batch, seconds.
    """

    def __init__(self, digest: str, layer: str) -> None:
        self.digest, self.layer = digest, layer
        self.filters: list[int] = []
        self.files: list[tuple[str, bytes]] = []
        self.facts: Record = {}

    def keep(self, layer: str, name: str, content: bytes) -> None:
        """Stores one file in memory."""
        self.files.append((name, content))


def job_digest(job: Mapping[str, Any]) -> str:
    """Returns the digest of a job's identity, which every tile of the job carries."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]


def tile_name(channel: int) -> str:
    """Returns the name of a filter's tile: its number in four digits or more."""
    return f"{channel:04d}.png"


def alpha_name(channel: int) -> str:
    """Returns the name of the map of where a filter's tile matters."""
    return f"{channel:04d}.alpha.png"


def whole_picture(path: Path) -> bool:
    """Returns whether a file is a PNG that can be read to its end."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_FILE else b""
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        return content.endswith(_END)
    except Exception:  # any exception: foreign bytes fail in many ways
        return False


def largest_tile(channels: int, size: int) -> int:
    """Returns a bound on a tile's bytes: rows with their PNG filter's byte, zlib's frames, the record."""
    shown = 3 if channels == 3 else 1
    raw = size * (size * shown + 1)
    return raw + raw // 1000 + 8192


def read_tile(path: Path) -> tuple[Image.Image | None, Record]:
    """Returns a tile and its record; (None, {}) if the file is damaged anywhere, checksums and end included.

    The file is not trusted until its record fits: an image that claims to be larger than a tile can be is not
    decoded.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return None, {}
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > _LARGEST_SIDE or not content.endswith(_END):
                return None, {}
            image.verify()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            record = json.loads(image.info.get(_CHUNK, "{}"))
    except Exception:  # any exception: foreign bytes fail in many ways
        return None, {}
    if not isinstance(record, dict):
        return None, {}
    named = isinstance(record.get("layer"), str) and isinstance(record.get("status"), str)
    return (image, record) if named and type(record.get("filter")) is int else (None, {})
