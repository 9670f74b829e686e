"""Finds the image patches in a folder of photos that activate each unit most.

Every photo is run once, in batches of a fixed size. Only the k best places of each unit are kept, at most one
per photo, so memory does not grow with the folder. Shards are merged by the same rule; their order does not
change the result.

    OUT/<layer>/patches/shard-0-of-4.json   the best places in a quarter of the photos
    OUT/<layer>/patches/patches.json        the best of all, once every shard is done
    OUT/<layer>/patches/0000.jpg ...        the patches of each unit, best first
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..config import configure
from ..errors import InputError
from ..networks.channels import channel_axis, channels_second
from ..networks.hooks import StopForward, hooked, run_until_stopped
from ..networks.load import open_model
from ..networks.names import LOGITS, choose_layers, target_modules
from ..networks.preprocessing import RESIZES, Source, describe, normalized
from ..networks.probe import evaluating, run_on
from ..networks.receptive_fields import windows
from ..progress import hidden
from .best_places import Top
from .patch_folder import PatchFolder, list_images, read_image
from .patch_sheets import write_sheets

_LOG = logging.getLogger(__name__)
_BATCH = 8


@dataclass(frozen=True)
class Patches:
    """The result of `top_patches`.

    Attributes:
        out: the folder.
        layers: canonical names of the requested layers.
        finished: the layers whose shards are all done, with their patches: unit -> best first, each with its
            image, score, position in the layer's output and box (left, top, right, bottom) in the network's
            input.
        skipped: files that could not be read as photos in this call.
    """

    out: Path
    layers: list[str]
    finished: dict[str, dict[int, list[dict[str, Any]]]]
    skipped: list[str]


def top_patches(
    model: nn.Module | str,
    images: str | os.PathLike[str],
    layers: Sequence[str] | str | None = None,
    out: str | os.PathLike[str] = "atlas",
    *,
    k: int = 9,
    shard: tuple[int, int] = (0, 1),
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: str = "weights",
    size: int | None = None,
    batch: int = _BATCH,
    progress: bool | None = None,
) -> Patches:
    """Finds the k patches in a folder of photos that activate each unit most, at most one per photo.

    A unit of a layer of maps is activated most where its output, before any ReLU, is largest; its patch is
    what that position sees (the receptive field). For a unit of a vector, and if the receptive field is not
    known, the patch is the whole photo.

    Args:
        model: a network, or a name that `load_model` accepts. It is never changed and runs on its current
            device in its current dtype.
        images: a folder; the photos in it and its subfolders are read in the order of their names.
        layers: dotted names, `convN` or `logits`; every convolution by default.
        out: the folder to write to; pass the folder of an atlas of the same network to see the patches on its
            page.
        k: number of patches per unit.
        shard: (i, n) reads every n-th photo starting from the i-th, counted from 0. The call that finds all n
            shards done merges them.
        weights: weights of a network given by name, as for `load_model`.
        mean: mean per channel of the preprocessing, if the network's own is not known.
        std: standard deviation per channel of the preprocessing.
        resize: "weights" resizes and crops photos as the weights' own preprocessing does; "squeeze" resizes
            the whole photo to a square.
        size: side in pixels to which photos are resized, default the network's own.
        batch: number of photos that run together.
        progress: whether to show a bar; None shows it on a terminal.

    Returns:
        The patches; layers with missing shards are not in `finished`.

    Raises:
        InputError: (a ValueError) an argument is wrong, no photo can be read, or the folder holds patches
            or an atlas of something else.
    """
    for name, value, most in (("k", k, 100), ("batch", batch, 4096)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"`{name}` must be a whole number from 1 to {most}, got {value!r}")
    part, parts = _checked_shard(shard)
    if resize not in RESIZES:
        raise InputError(f"`resize` must be one of {', '.join(RESIZES)}, got {resize!r}")
    paths = list_images(images)
    network = open_model(model, weights)
    side = configure(size=size).size
    source = describe(network, mean, std, side)
    side = side or source.size
    wanted = choose_layers(network, layers)
    folder = PatchFolder(out, network, source, images, paths, k=k, resize=resize, size=side)

    def read(path: Path) -> Tensor | None:
        return read_image(path, source, resize, side)

    _LOG.info("%d pictures in %s, shard %d of %d", len(paths), images, part, parts)
    missing = [layer for layer in wanted if not folder.has_shard(layer, part, parts)]
    skipped: list[str] = []
    if missing:
        stream = _stream(paths, part, parts, read, skipped)
        found = _collect(network, source, missing, stream, k, batch, len(paths[part::parts]), progress)
        for layer, top in found.items():
            folder.write_shard(layer, part, parts, top)
    unfinished = [layer for layer in wanted if folder.finished(layer) is None]
    with evaluating(network):
        seen = windows(network, _example(network, source, side)) if unfinished else {}
    for layer in unfinished:
        if (best := folder.merged(layer, parts)) is not None:
            field = seen.get("" if layer == LOGITS else layer)
            write_sheets(folder, layer, best, field, read, progress)
    done = {layer: units for layer in wanted if (units := folder.finished(layer)) is not None}
    return Patches(folder.out, wanted, done, skipped)


def _example(network: nn.Module, source: Source, side: int) -> Tensor:
    """Returns a black photo as the network reads it."""
    return normalized(network, torch.zeros(1, len(source.mean), side, side), source)


def _checked_shard(shard: tuple[int, int]) -> tuple[int, int]:
    try:
        part, parts = shard
        if 0 <= part < parts and not isinstance(part, float) and not isinstance(parts, float):
            return part, parts
    except (TypeError, ValueError):
        pass
    raise InputError(f"`shard` must be (i, n) with 0 <= i < n, got {shard!r}")


def _stream(
    paths: Sequence[Path],
    part: int,
    parts: int,
    read: Callable[[Path], Tensor | None],
    skipped: list[str],
) -> Iterator[tuple[int, Tensor]]:
    """Yields number and pixels [1, C, H, W] of every readable photo of a shard, reading a few ahead."""
    numbers = range(part, len(paths), parts)
    with ThreadPoolExecutor(2) as pool:
        for first in range(0, len(numbers), _BATCH):
            some = numbers[first : first + _BATCH]
            for number, pixels in zip(some, pool.map(lambda n: read(paths[n]), some), strict=True):
                if pixels is None:
                    skipped.append(str(paths[number]))
                else:
                    yield number, pixels
    if skipped:
        more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        warnings.warn(f"skipped files that cannot be read as photos: {skipped[0]}{more}", stacklevel=4)


def _collect(
    network: nn.Module,
    source: Source,
    layers: Sequence[str],
    stream: Iterator[tuple[int, Tensor]],
    k: int,
    batch: int,
    total: int,
    progress: bool | None,
) -> dict[str, Top]:
    """Finds the best places of every unit over a stream of photos, with one forward pass per batch."""
    tops: dict[str, Top] = {}
    numbers: list[int] = []
    seen: set[str] = set()

    def reduce(name: str, module: nn.Module, output: Any) -> None:
        if name in seen:  # if a module runs twice, its first output counts
            return
        seen.add(name)
        # Here and not after the pass, because an in-place ReLU may overwrite the output next.
        values = _values(name, module, output, len(numbers))
        tops.setdefault(name, Top(k)).update(numbers, values)
        if len(seen) == len(layers) and LOGITS not in layers:
            raise StopForward

    with (
        evaluating(network),
        hooked(target_modules(network, layers), reduce),
        tqdm(total=total, desc="patches", unit=" pictures", disable=hidden(progress)) as bar,
    ):
        for numbers, pixels in _batches(stream, batch):  # `reduce` reads the numbers
            seen.clear()
            x = normalized(network, pixels, source)
            run_until_stopped(run_on, network, x, type(network).__name__)
            for name in layers:
                if name not in seen:
                    raise InputError(f"the layer {name!r} does not run: pick one that `layers` lists")
            bar.update(len(numbers))
    if not tops:
        raise InputError("no photo of this shard can be read: pass a folder of JPEG or PNG files")
    return tops


def _batches(stream: Iterator[tuple[int, Tensor]], batch: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yields numbers and pixels in full batches, so that scores do not depend on how many photos are left."""
    numbers: list[int] = []
    pixels: list[Tensor] = []
    for number, picture in stream:
        numbers.append(number)
        pixels.append(picture)
        if len(numbers) == batch:
            yield numbers, torch.cat(pixels)
            numbers, pixels = [], []
    if numbers:
        yield numbers, torch.cat([*pixels, *[pixels[0]] * (batch - len(pixels))])


def _values(name: str, module: nn.Module, output: Any, count: int) -> np.ndarray:
    """Returns outputs of the first `count` photos, float32 [B, channels, rows, columns]; vectors as 1 x 1."""
    axis = None
    if isinstance(output, Tensor):
        axis = channel_axis(output.shape, None if name == LOGITS else module)
    if axis is None:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"{name!r} yields {shape}, neither maps, tokens nor a vector: pick a layer that `layers` lists"
        )
    values = channels_second(output[:count].detach().to("cpu", torch.float32), axis)
    while values.ndim < 4:
        values = values[..., None]
    return values.contiguous().numpy()
