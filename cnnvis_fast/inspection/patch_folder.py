"""Stores patches on disk, and lists the folder of photos that they come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..images.photos import read_photo
from ..networks.digests import structure_digest, weights_digest
from ..networks.preprocessing import Source, network_input
from ..storage.files import plain_name, told, write_whole
from ..storage.job_folder import differences
from .best_places import Top

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns all image files in a folder and its subfolders, in the order of their names.

    Raises:
        InputError: there is no such folder, or no such file in it.
    """
    root = Path(folder)
    if not str(folder) or not root.is_dir():
        raise InputError(f"no folder of photos at {os.fspath(folder)!r}: pass one with JPEG or PNG files")
    found = [path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    if not found:
        raise InputError(
            f"no photos in {os.fspath(folder)!r}: expected files like {', '.join(sorted(_SUFFIXES))}"
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_image(path: Path, source: Source, resize: str, size: int) -> Tensor | None:
    """Returns a photo as the network reads it, float32 [1, C, H, W] in [0, 1]; None if it is not a photo.

    Raises:
        InputError: the network does not read 1 or 3 channels.
    """
    try:
        picture = read_photo(path)
    except InputError:
        return None
    return network_input(picture, source, resize, size)


class PatchFolder:
    """The patches of one network over one folder of photos; layers can be added at any time.

    Args:
        out: the folder of the patches; it is created if necessary.
        network: the inspected network.
        source: source of the network.
        images: the folder of photos.
        paths: paths of all photos.
        **options: everything else that the result depends on.

    Raises:
        InputError: `out` holds an atlas of another network.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        network: nn.Module,
        source: Source,
        images: str | os.PathLike[str],
        paths: Sequence[Path],
        **options: Any,
    ) -> None:
        if not str(out):
            raise InputError("`out` is empty: pass a folder's name")
        self.out, self.paths = Path(out), paths
        self.root = Path(images)
        listing = "\n".join(f"{self.name(n)} {path.stat().st_size}" for n, path in enumerate(paths))
        self.job = {
            "model": source.name,
            "weights": source.weights,
            "weights_sha256": weights_digest(network),
            "structure_sha256": structure_digest(network),
            "mean": list(source.mean),
            "std": list(source.std),
            "images": self.root.resolve().name,
            "pictures": len(paths),
            "pictures_sha256": hashlib.sha256(listing.encode()).hexdigest(),
            **options,
        }
        self._refuse_other_atlas()

    def name(self, number: int) -> str:
        """Returns the name of a photo: its path relative to the folder."""
        return self.paths[number].relative_to(self.root).as_posix()

    def folder(self, layer: str) -> Path:
        """Returns the folder of a layer's patches."""
        return self.out / plain_name(layer) / "patches"

    def has_shard(self, layer: str, part: int, parts: int) -> bool:
        """Returns whether a shard of a layer is done.

        Raises:
            InputError: the files belong to other patches or are damaged.
        """
        return self.finished(layer) is not None or self._read(self._shard(layer, part, parts)) is not None

    def write_shard(self, layer: str, part: int, parts: int, top: Top) -> None:
        """Writes the best places of one shard."""
        self.write(self._shard(layer, part, parts), {"job": self.job, "layer": layer, "units": top.to_json()})

    def merged(self, layer: str, parts: int) -> Top | None:
        """Returns the best places over all shards; None while one of them is missing."""
        top = Top(int(self.job["k"]))
        for part in range(parts):
            content = self._read(self._shard(layer, part, parts))
            if content is None:
                return None
            top.merge(Top.from_json(top.k, content["units"]))
        return top

    def finished(self, layer: str) -> dict[int, list[dict[str, Any]]] | None:
        """Returns the patches of a layer, unit -> best first; None until all shards are merged."""
        content = self._read(self.folder(layer) / "patches.json")
        return None if content is None else {int(unit): best for unit, best in content["units"].items()}

    def write(self, path: Path, content: dict[str, Any] | bytes) -> None:
        """Writes one file completely or not at all."""
        data = (
            content if isinstance(content, bytes) else (json.dumps(content, sort_keys=True) + "\n").encode()
        )
        with told(self.out):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)

    def _shard(self, layer: str, part: int, parts: int) -> Path:
        return self.folder(layer) / f"shard-{part}-of-{parts}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            job = content["job"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: remove it and run the same command again") from error
        if others := differences(job, self.job):
            name, (was, now) = next(iter(others.items()))
            raise InputError(
                f"{path.parent} holds other patches: their {name} is {was!r}, yours is {now!r}; pass another "
                "folder as out, the same options, or remove this one"
            )
        return content

    def _refuse_other_atlas(self) -> None:
        path = self.out / "job.json"
        if not path.is_file():
            return
        try:
            digest = json.loads(path.read_text())["weights_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: pass another folder as out") from error
        if digest != self.job["weights_sha256"]:
            raise InputError(
                f"{self.out} holds an atlas of a network with other weights: pass its weights, or another "
                "folder as out"
            )
