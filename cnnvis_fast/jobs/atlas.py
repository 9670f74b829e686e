"""`atlas`: makes the pictures of whole layers as a resumable job in a folder."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from ..config import Config, configure
from ..errors import CannotWrite, InputError
from ..images.photos import Photo, Photograph
from ..networks.listing import LayerTable
from ..networks.listing import layers as list_layers
from ..networks.load import open_model
from ..networks.names import LOGITS, choose_layers, module_order, parse_filters
from ..networks.preprocessing import describe
from ..objectives.readout import neuron_position
from ..progress import progress_bar
from ..storage.job_folder import Store
from ..storage.tiles import Parcel, Record
from .engines import Engine, check_engine
from .job import Job

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Atlas:
    """A job on disk.

    Attributes:
        store: the job's folder.
        layers: canonical names of the requested layers.
        made: number of tiles that this call made; the others existed already.
        seconds: time that this call took, without loading the network.
    """

    store: Store
    layers: list[str]
    made: int
    seconds: float

    def __repr__(self) -> str:
        counts = self.store.counts(self.layers)
        tiles = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no tiles"
        return f"Atlas({str(self.store.out)!r}: {', '.join(self.layers)}; {tiles})"

    @property
    def scores(self) -> list[Record]:
        """One record per tile of the requested layers: status, scores, configuration."""
        return [record for layer in self.layers for record in self.store.records(layer)]

    def sheet(self, layer: str) -> Image.Image:
        """Returns one image with all tiles of a layer."""
        return self.store.sheet(layer)


def atlas(
    model: nn.Module | str = "texturenet",
    layers: Sequence[str] | str | None = None,
    out: str | os.PathLike[str] = "atlas",
    *,
    filters: Iterable[int] | int | str | None = None,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    start: Photo | Photograph | None = None,
    progress: bool | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    **options: Any,
) -> Atlas:
    """Makes the tiles of whole layers in a folder; called again, it makes those that are missing.

    Args:
        model: a network, which is never changed, or a name for `load_model`.
        layers: names of layers, "all" for every convolution that runs, None for the last convolution.
        out: the folder, with one subfolder of tiles per layer. A folder that holds another job is refused.
        filters: channels, as numbers or as text like "0-63,100", the same for every layer; all by default.
        weights: weights of a network given by name: "DEFAULT", torchvision weights or their name, a tag of
            timm's, None or "none" for random weights, or the path of a file.
        mean: mean per channel of the preprocessing, if the network's own is not known.
        std: standard deviation per channel of the preprocessing.
        start: photo that the pictures start from, instead of noise.
        progress: whether to show a progress bar; None shows it only on a terminal.
        engine: "local" makes the tiles in this process, "ray" in worker processes, on every GPU of a machine
            or on all machines of a cluster.
        address: address of a running Ray cluster; None starts one on this machine. Implies "ray".
        workers: number of Ray workers; by default one per GPU, or one for every `threads` CPUs.
        threads: CPU threads of each process, part of a CPU job's identity; default 1 with Ray, else PyTorch's
            number.
        **options: fields of `Config`: `preset=`, `steps=`, `size=`, `seed=` and so on.

    Raises:
        InputError: (a ValueError) an argument is wrong, and nothing was written; or the folder can no longer
            be written to, and finished tiles stay.
        KeyboardInterrupt: finished tiles stay, with sheets and table; call again to resume.
    """
    config = configure(**options)
    chosen = check_engine(engine, address, workers, threads)
    network = open_model(model, weights)
    source = describe(network, mean, std, config.size)
    names = choose_layers(network, layers, last_by_default=True)
    if isinstance(filters, Iterable) and not isinstance(filters, str):
        filters = list(filters)
    channels: dict[str, int] = {}
    if len(names) > 1:
        rows = list_layers(network, size=config.size or source.size, channels=len(source.mean))
        if layers == "all":
            names = _those_listed(names, rows)
        channels = _check_all(rows, names, filters, config)
    photo = None if start is None else Photograph.of(start)
    with chosen.open(Job(network, source, config, photo, chosen.threads)) as maker:
        first = maker.plan_layer(names[0])
        channels = channels or {first.layer: first.channels}
        wanted = {name: parse_filters(filters, count, name) for name, count in channels.items()}
        return fill(Store(out, first.identity), wanted, maker, progress, module_order(network))


def fill(
    store: Store,
    wanted: Mapping[str, list[int]],
    maker: Engine,
    progress: bool | None,
    modules: list[Record],
) -> Atlas:
    """Makes the tiles that are missing in a folder.

    Args:
        store: the folder.
        wanted: filters by canonical layer name; at least one layer.
        maker: engine that makes the tiles.
        progress: whether to show a progress bar; None shows it only on a terminal.
        modules: the network's modules in order, for layers.json.
    """
    began, made = time.perf_counter(), 0
    finished = {name: store.finished(name) for name in wanted}
    missing = {
        name: [channel for channel in chosen if channel not in finished[name]]
        for name, chosen in wanted.items()
    }
    for name, chosen in wanted.items():
        _LOG.info("%s: %d of %d pictures to make", name, len(missing[name]), len(chosen))
    total, left = sum(map(len, wanted.values())), sum(map(len, missing.values()))
    store.check_room({name: (len(missing[name]), len(wanted[name])) for name in wanted})
    stale = set(wanted)  # layers whose sheet may not show all tiles
    with (
        store.writing(),
        progress_bar(total, next(iter(wanted)), progress, total - left, store.pace(wanted)) as bar,
    ):
        try:
            store.write_layers(modules)
            since = began
            for parcel in maker.parcels({name: part for name, part in missing.items() if part}, bar):
                store.unpack(parcel)
                made += len(parcel.filters)
                bar.finish(len(parcel.filters))
                stale.add(parcel.layer)
                now = time.perf_counter()
                store.log(_log_line(parcel, now - since))
                since = now
                remaining = missing[parcel.layer] = [
                    channel for channel in missing[parcel.layer] if channel not in parcel.filters
                ]
                if not remaining:
                    store.write_sheet(parcel.layer)
                    stale.discard(parcel.layer)
        except CannotWrite as error:
            left = sum(map(len, missing.values()))
            raise CannotWrite(
                f"{error}; {left} of {total} pictures are missing: run the same call again, on this folder "
                "or a copy of it, to make them"
            ) from error
        finally:
            _write_derived(store, stale)
    return Atlas(store, list(wanted), made, time.perf_counter() - began)


def _write_derived(store: Store, stale: Iterable[str]) -> None:
    """Rewrites the stale sheets and the table; an error that is already being raised is not replaced."""
    failing = sys.exc_info()[0] is not None
    with contextlib.suppress(*([CannotWrite] if failing else [])):
        for name in sorted(stale):
            if store.folder(name).is_dir():
                store.write_sheet(name)
        store.write_table()


def _log_line(parcel: Parcel, seconds: float) -> Record:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "layer": parcel.layer,
        "filters": parcel.filters,
        "seconds": round(seconds, 3),
        **parcel.facts,
    }


def _those_listed(names: Sequence[str], rows: LayerTable) -> list[str]:
    """Returns the names that are listed, or all if none is; one warning names the others."""
    listed = {row.name for row in rows}
    left_out = [name for name in names if name not in listed]
    if not left_out or len(left_out) == len(names):
        return list(names)
    verb = "does" if len(left_out) == 1 else "do"
    warnings.warn(f"skipping {', '.join(left_out)}, which {verb} not run on a whole picture", stacklevel=3)
    return [name for name in names if name in listed]


def _check_all(
    rows: LayerTable, names: Sequence[str], filters: Iterable[int] | int | str | None, config: Config
) -> dict[str, int]:
    """Returns the number of channels of every layer, after checking that the job suits all of them."""
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            what = "output" if name == LOGITS else f"layer {name!r}"
            raise InputError(f"the {what} yields no maps and no vector: choose layers that `layers` lists")
        row = known[name]
        parse_filters(filters, row.channels, name)
        size = [row.height, row.width] if row.height else []
        neuron_position(config.objective, config.position, size, name)
    return {name: known[name].channels for name in names}
