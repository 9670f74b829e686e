"""`atlas`: the pictures of whole layers as a resumable job in a folder."""

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
from .engines import TileSource, check_engine

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Atlas:
    """A job on disk.

    Attributes:
        store: its folder.
        layers: canonical names of the layers asked for.
        made: tiles that this call made; the others were there.
        seconds: that this call took, without loading the network.
    """

    store: Store
    layers: list[str]
    made: int
    seconds: float

    def __repr__(self) -> str:
        counts = self.store.counts(self.layers)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no tiles"
        return f"Atlas({str(self.store.out)!r}: {', '.join(self.layers)}; {told})"

    @property
    def scores(self) -> list[Record]:
        """One record per tile of the layers asked for: status, scores, configuration."""
        return [record for layer in self.layers for record in self.store.records(layer)]

    def sheet(self, layer: str) -> Image.Image:
        """All tiles of a layer on one picture."""
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
    """Makes the tiles of whole layers in a folder; called again, it makes what is missing.

    Args:
        model: a network, or a name for `load_model`.
        layers: names, "all" for every convolution that runs, None for the last convolution.
        out: the folder, see `store` for its layout. A folder of another job is refused.
        filters: as for `maximize`, the same for every layer.
        weights: of a network given by name, see `load_model`.
        mean: as for `maximize`.
        std: as for `maximize`.
        start: as for `maximize`.
        progress: as for `maximize`.
        engine: "local" makes the tiles in this process, "ray" in worker processes, on every GPU of a machine
            or on all machines of a cluster.
        address: of a Ray cluster that is running; None starts one on this machine. Implies "ray".
        workers: of Ray; default one a GPU, or one for every `threads` CPUs.
        threads: of a CPU that each process computes with, part of a CPU job's identity; default 1 with Ray,
            else PyTorch's number.
        **options: as for `maximize`.

    Raises:
        InputError: (a ValueError) an argument is wrong, and nothing was written; or the folder cannot be
            written any more, and finished tiles stay.
        KeyboardInterrupt: finished tiles stay, with sheets and table; call again to go on.
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
    with chosen.opened(network, source, config, photo) as maker:
        target = maker.target(names[0])
        channels = channels or {target.layer: target.channels}
        wanted = {name: parse_filters(filters, count, name) for name, count in channels.items()}
        return _fill(Store(out, target.job), wanted, maker, progress, module_order(network))


def _fill(
    store: Store,
    wanted: Mapping[str, list[int]],
    maker: TileSource,
    progress: bool | None,
    modules: list[Record],
) -> Atlas:
    """Makes what is missing in a folder."""
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
    stale = set(wanted)  # layers whose sheet does not show what is there
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
                f"{error}; {left} of {total} pictures are missing, run the same again, there or on a copy of "
                "the folder, to make them"
            ) from error
        finally:
            _derive(store, stale)
    return Atlas(store, list(wanted), made, time.perf_counter() - began)


def _derive(store: Store, stale: Iterable[str]) -> None:
    """Writes sheets and the table anew; where something went wrong already, that is what is told."""
    failing = sys.exc_info()[0] is not None
    with contextlib.suppress(*([CannotWrite] if failing else [])):
        for name in sorted(stale):
            if store.folder(name).is_dir():
                store.write_sheet(name)
        store.write_table()
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
    """The names that are listed, or all where none is; the others are told in one warning."""
    listed = {row.name for row in rows}
    left_out = [name for name in names if name not in listed]
    if not left_out or len(left_out) == len(names):
        return list(names)
    verb = "does" if len(left_out) == 1 else "do"
    warnings.warn(f"left out: {', '.join(left_out)} {verb} not run on a whole picture", stacklevel=3)
    return [name for name in names if name in listed]


def _check_all(
    rows: LayerTable, names: Sequence[str], filters: Iterable[int] | int | str | None, config: Config
) -> dict[str, int]:
    """Channels of every layer; refuses, before anything is written, a list of which a later one fails."""
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            what = "output" if name == LOGITS else f"layer {name!r}"
            raise InputError(f"the {what} yields no maps or vector: pick layers that `layers` lists")
        row = known[name]
        parse_filters(filters, row.channels, name)
        size = [row.height, row.width] if row.height else []
        neuron_position(config.objective, config.position, size, name)
    return {name: known[name].channels for name in names}
