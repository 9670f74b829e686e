"""Where tiles are made: in this process, or by Ray's workers."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ..config import Config
from ..errors import InputError
from ..images.photos import Photograph
from ..networks.preprocessing import Source
from ..progress import Progress
from ..storage.tiles import Parcel
from .tile_maker import Maker, Target

ENGINES = ("local", "ray")


class TileSource(Protocol):
    """What makes the tiles of a job, wherever that is."""

    def target(self, layer: str) -> Target:
        """Plans a layer."""

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        """Makes tiles, per layer those of some filters; they come in any order."""


class _ThisProcess:
    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self.target = maker.target

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        for layer, filters in work.items():
            progress.name(layer)
            yield from self._maker.parcels(layer, filters, progress.reach)


@dataclass(frozen=True)
class Engine:
    """A checked choice, see `atlas`."""

    name: str
    address: str | None
    workers: int | None
    threads: int | None

    @contextlib.contextmanager
    def opened(
        self, network: nn.Module, source: Source, config: Config, start: Photograph | None = None
    ) -> Iterator[TileSource]:
        """Whatever makes the tiles, ready; its processes end with this."""
        if self.name == "local":
            yield _ThisProcess(Maker(network, source, config, self.threads, start))
            return
        from .ray_engine import ray_workers

        with ray_workers(
            network, source, config, start, self.address, self.workers, self.threads or 1
        ) as workers:
            yield workers


def check_engine(name: str, address: str | None, workers: int | None, threads: int | None) -> Engine:
    """The choice of an engine.

    Raises:
        InputError: there is no such engine, its package is missing, or an option does not go with it.
    """
    if address is not None:
        name = "ray" if name == "local" else name
    if name not in ENGINES:
        raise InputError(f"`engine` must be one of {', '.join(ENGINES)}, got {name!r}")
    for option, value in (("workers", workers), ("threads", threads)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= int(value) <= 100_000):
            raise InputError(f"`{option}` must be a whole number from 1 to 100000, got {value!r}")
    if name == "local" and workers is not None:
        raise InputError('`workers` are for the engine ray: pass engine="ray" too, or leave them out')
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError("the engine ray needs Ray: pip install 'cnnvis_fast[ray]', or use the engine local")
    return Engine(name, address, workers, threads)
