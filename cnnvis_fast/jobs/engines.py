"""Chooses where tiles are made: in this process or by Ray's workers."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import InputError
from ..progress import Progress
from ..storage.tiles import Parcel
from .job import Job
from .tile_maker import PlannedLayer, TileMaker

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Makes the tiles of one job."""

    def plan_layer(self, layer: str) -> PlannedLayer:
        """Plans a layer; call it for the job's first layer before `parcels`."""

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        """Makes tiles and yields them in any order.

        Args:
            work: filters to make, by canonical layer name.
            progress: bar to update.
        """


class LocalEngine:
    """Makes tiles in this process."""

    def __init__(self, job: Job) -> None:
        self._maker = TileMaker(job)
        self.plan_layer = self._maker.plan_layer

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        """Makes tiles, layer by layer."""
        for layer, filters in work.items():
            progress.name(layer)
            yield from self._maker.parcels(layer, filters, progress.reach)


@dataclass(frozen=True)
class EngineChoice:
    """The engine options of `atlas`, validated.

    Attributes:
        name: "local" or "ray".
        address: address of a running Ray cluster; None starts one on this machine.
        workers: number of Ray workers; None takes what the cluster offers.
        threads: CPU threads of each process; None keeps PyTorch's number.
    """

    name: str
    address: str | None
    workers: int | None
    threads: int | None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Engine]:
        """Starts the engine; stops its processes at the end."""
        if self.name == "local":
            yield LocalEngine(job)
            return
        from .ray_engine import open_ray_engine

        with open_ray_engine(job, self.address, self.workers) as engine:
            yield engine


def check_engine(name: str, address: str | None, workers: int | None, threads: int | None) -> EngineChoice:
    """Validates the engine options of `atlas`; an address implies "ray", and Ray uses 1 thread by default.

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
        raise InputError('`workers` needs the engine ray: pass engine="ray" too, or leave it out')
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError("the engine ray needs Ray: pip install 'cnnvis_fast[ray]', or use the engine local")
    return EngineChoice(name, address, workers, (threads or 1) if name == "ray" else threads)
