"""Tiles made by Ray's workers, on all GPUs of a machine or on all machines of a cluster.

The driver hands out units: some filters of one layer, as many as take a worker a few seconds. A worker is a
process that keeps the network, the last layer's trunk and its compiled step from unit to unit, and sends the
finished files back; the driver alone writes to the folder, so machines need none in common. When a worker or
its machine is lost, its unit goes to another one and a new worker is asked for. What is in the folder is
never made again.

Ray's processes exchange pickles: whoever reaches a cluster's ports runs code there. A cluster belongs into a
network of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..config import Config
from ..errors import InputError, first_line
from ..images.photos import Photograph
from ..networks.preprocessing import Source
from ..progress import Progress
from ..storage.tiles import Parcel
from .tile_maker import Maker, Target

UNIT_SECONDS = 5.0
_LOSSES = 5  # of one and the same unit, after which it is given up
_STARTS = 10  # per worker, that may fail in a row
_PATIENCE = 30.0  # seconds without any worker after which that is said


@contextlib.contextmanager
def ray_workers(
    network: nn.Module,
    source: Source,
    config: Config,
    start: Photograph | None,
    address: str | None,
    workers: int | None,
    threads: int,
) -> Iterator[RayWorkers]:
    """Workers of a Ray cluster; what was started for them ends with this.

    Args:
        network: whose filters are wanted; every worker gets a copy.
        source: its name and preprocessing.
        config: as asked for.
        start: photo that all pictures start from; None for noise.
        address: of a running cluster, "auto" for the one of this machine; None starts one on this machine.
        workers: how many; None takes what the cluster offers now.
        threads: of a CPU for each.

    Raises:
        InputError: no cluster answers at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of every start otherwise
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address is None:
            options |= {"include_dashboard": False, "num_cpus": (workers or 1) * threads}
            if workers is None or torch.cuda.is_available():
                del options["num_cpus"]
        handlers: dict[int, Any] = {
            number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            ray.init(address=address or "local", **options)
            _restore(handlers)
        except Exception as error:  # any exception: what Ray raises depends on what answers there
            if address is None:
                raise InputError(
                    f"Ray does not start on this machine ({first_line(error)}): try again, or use "
                    "the engine local"
                ) from error
            raise InputError(
                f"no Ray cluster answers at {address} ({first_line(error)}): start one with `ray start "
                "--head`, or leave the address out"
            ) from error
    team = None
    try:
        team = RayWorkers(network, source, config, start, workers, threads)
        yield team
    finally:
        if team is not None:
            team.dismiss()
        if ours:
            ray.shutdown()


def _ray() -> Any:
    """Ray, of which a type checker should know nothing, so that it finds the same with Ray and without."""
    return importlib.import_module("ray")


def _restore(handlers: Mapping[int, Any]) -> None:
    """Gives signals back to whom they belonged to before Ray took them."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _RemoteMaker:
    """What a worker runs."""

    def __init__(
        self, network: nn.Module, source: Source, config: Config, threads: int, start: Photograph | None
    ) -> None:
        torch.set_num_threads(threads)  # for good: the process does nothing else
        self._maker = Maker(network, source, config, threads, start)

    def target(self, layer: str) -> Target:
        """The plan of the job's first layer; it tells what this worker's pictures are a function of."""
        return self._maker.target(layer)

    def work(self, layer: str, filters: Sequence[int]) -> tuple[list[Parcel], float]:
        """Tiles of one unit and the seconds that they took."""
        began = time.perf_counter()
        parcels = list(self._maker.parcels(layer, filters))
        return parcels, time.perf_counter() - began


@dataclass(eq=False)
class _Unit:
    """Some filters of one layer, how long they may take once it is known, and how often they were lost."""

    layer: str
    filters: list[int]
    losses: int = 0


@dataclass(eq=False)
class _Lot:
    """What is left of one layer.

    Attributes:
        layer: canonical name.
        filters: not yet handed out.
        returned: units that were lost with their worker.
        seconds: per picture, as measured; None before the first unit is back.
    """

    layer: str
    filters: deque[int]
    returned: deque[_Unit] = field(default_factory=deque)
    seconds: float | None = None

    def unit(self, batch: int, workers: int) -> _Unit:
        """The next unit: a batch first, then what takes `UNIT_SECONDS`, and less towards the end.

        Towards the end a unit is half of an equal share, so that no worker is left with a long one.
        """
        if self.returned:
            return self.returned.popleft()
        count = 1
        if self.seconds is not None:
            count = int(UNIT_SECONDS / max(self.seconds * batch, 1e-6))
            count = max(1, min(count, len(self.filters) // (2 * workers * batch)))
        return _Unit(
            self.layer, [self.filters.popleft() for _ in range(min(count * batch, len(self.filters)))]
        )

    def empty(self) -> bool:
        """Whether nothing is left to hand out."""
        return not self.filters and not self.returned


class RayWorkers:
    """The workers of one job, see `ray_workers`."""

    def __init__(
        self,
        network: nn.Module,
        source: Source,
        config: Config,
        start: Photograph | None,
        workers: int | None,
        threads: int,
    ) -> None:
        self._ray = ray = _ray()
        self._network, self._source = ray.put(network), source
        self._config, self._threads, self._start = config, threads, start
        offered = ray.cluster_resources()
        gpus = int(offered.get("GPU", 0)) if config.device in ("auto", "cuda") else 0
        if config.device == "cuda" and not gpus:
            raise InputError("no machine of the Ray cluster offers a GPU: use --device cpu, or add one")
        self._resources = {"num_cpus": threads, "num_gpus": 1 if gpus else 0}
        self._count = workers or gpus or max(1, int(offered.get("CPU", 1)) // threads)
        self._layer = ""  # the job's first, which every worker plans to tell what it makes
        self._first: Target | None = None
        self._stillborn = 0
        self._starting: dict[Any, Any] = {}  # a worker's answer that it is ready, to the worker
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Unit]] = {}  # a unit's answer to worker and unit

    def target(self, layer: str) -> Target:
        """The plan of the layer that tells the job's identity, made by the first worker that is there."""
        self._layer = layer
        for _ in range(self._count):
            self._hire(layer)
        while self._first is None:
            self._welcome(self._wait())
        return self._first

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        """Makes tiles; layers in their order, but several at a time where one does not keep all busy."""
        if self._first is None:
            raise RuntimeError("`target` comes first: it tells what the workers make")
        first = self._first
        lots = {layer: _Lot(layer, deque(filters)) for layer, filters in work.items()}
        while self._busy or any(not lot.empty() for lot in lots.values()):
            for lot in lots.values():
                while self._idle and not lot.empty():
                    worker, unit = self._idle.pop(), lot.unit(first.batch, self._count)
                    self._busy[worker.work.remote(unit.layer, unit.filters)] = worker, unit
            progress.name(f"{len(self._busy)} of {self._count} workers busy")
            ready = self._wait()
            if ready in self._starting:
                self._welcome(ready)
                continue
            worker, unit = self._busy.pop(ready)
            try:
                parcels, seconds = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise self._cause(error) from error
            except self._ray.exceptions.RayError as error:  # the worker is gone, or what it had made
                self._lost(unit, error)
                lots[unit.layer].returned.append(unit)
                with contextlib.suppress(Exception):  # it may be gone
                    self._ray.kill(worker)
                self._hire(self._layer)
                continue
            lots[unit.layer].seconds = seconds / len(unit.filters)
            self._idle.append(worker)
            yield from parcels

    def dismiss(self) -> None:
        """Ends all workers."""
        everyone = [*self._starting.values(), *self._idle, *(worker for worker, _ in self._busy.values())]
        for worker in everyone:
            with contextlib.suppress(Exception):  # it may be gone, and the cluster too
                self._ray.kill(worker)

    def _hire(self, first_layer: str) -> None:
        """Asks for a worker; it comes when the cluster has room for it."""
        remote = self._ray.remote(**self._resources, max_restarts=0, max_task_retries=0)(_RemoteMaker)
        worker = remote.remote(self._network, self._source, self._config, self._threads, self._start)
        self._starting[worker.target.remote(first_layer)] = worker

    def _wait(self) -> Any:
        """The next answer of any worker."""
        began, told = time.monotonic(), False
        while True:
            ready, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1, timeout=1.0)
            if ready:
                return ready[0]
            if not told and not self._busy and time.monotonic() - began > _PATIENCE:
                told = True
                warnings.warn(
                    f"no worker has started for {_PATIENCE:.0f} seconds: the Ray cluster has no "
                    f"{'GPU' if self._resources['num_gpus'] else f'{self._threads} CPUs'} free; waiting",
                    stacklevel=2,
                )

    def _welcome(self, ready: Any) -> None:
        """Takes in a worker that is ready, if it makes the same pictures as the others."""
        worker, layer = self._starting.pop(ready), self._layer
        try:
            target = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise self._cause(error) from error
        except self._ray.exceptions.RayError as error:
            self._stillborn += 1
            if self._stillborn >= _STARTS * self._count:
                raise InputError(
                    f"{self._stillborn} Ray workers in a row ended while they started ({first_line(error)}): "
                    "look for a lack of memory"
                ) from error
            self._hire(layer)
            return
        self._stillborn = 0
        if self._first is None:
            self._first = target
        elif target.job != self._first.job:
            different = [name for name, value in target.job.items() if self._first.job.get(name) != value]
            raise InputError(
                f"the machines of the Ray cluster would make different pictures: their {different[0]} is "
                f"{target.job[different[0]]!r} and {self._first.job[different[0]]!r}; use machines that are "
                "alike, or name device, dtype and kernels"
            )
        self._idle.append(worker)

    def _lost(self, unit: _Unit, error: Exception) -> None:
        unit.losses += 1
        if unit.losses >= _LOSSES:
            raise InputError(
                f"{unit.losses} workers in a row ended while they made the filters {unit.filters[0]} to "
                f"{unit.filters[-1]} of {unit.layer} ({first_line(error)}): look for a lack of memory, or "
                "try a smaller batch"
            ) from error

    def _cause(self, error: Exception) -> Exception:
        """What went wrong in a worker, as it would have been told in this process."""
        cause = getattr(error, "cause", None)
        return cause if isinstance(cause, InputError) else error
