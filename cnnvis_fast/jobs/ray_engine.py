"""Makes tiles in Ray's workers, on all GPUs of a machine or on all machines of a cluster.

The driver hands out assignments: some filters of one layer, as many as a worker makes in a few seconds. A
worker is a process that keeps the network, the last layer's trunk and its compiled step between assignments
and sends the finished files back. Only the driver writes to the folder, so the machines need no common file
system. When a worker or its machine is lost, its assignment goes to another worker and a new worker is
requested. Tiles that are in the folder are never made again.

Ray's processes exchange pickles: whoever can reach a cluster's ports can run code there. Put a cluster into
a network of its own.
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

from ..errors import InputError, first_line
from ..progress import Progress
from ..storage.tiles import Parcel
from .job import Job
from .tile_maker import PlannedLayer, TileMaker

ASSIGNMENT_SECONDS = 5.0
_LOSSES = 5  # workers lost over one assignment before the job fails
_STARTS = 10  # failed starts in a row, per worker, before the job fails
_PATIENCE = 30.0  # seconds without any worker before a warning


@contextlib.contextmanager
def open_ray_engine(job: Job, address: str | None, workers: int | None) -> Iterator[RayEngine]:
    """Connects to a Ray cluster, or starts one; stops whatever it started at the end.

    Args:
        job: what the pictures are made from; every worker gets a copy.
        address: address of a running cluster, "auto" for this machine's; None starts one on this machine.
        workers: number of workers; None takes what the cluster offers now.

    Raises:
        InputError: no cluster answers at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports every start to its makers otherwise
    ray = _ray()
    threads = job.threads or 1
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
        except Exception as error:  # any exception: what Ray raises depends on what answers at the address
            if address is None:
                raise InputError(
                    f"Ray does not start on this machine ({first_line(error)}): try again, or use the engine "
                    "local"
                ) from error
            raise InputError(
                f"no Ray cluster answers at {address} ({first_line(error)}): start one with `ray start "
                "--head`, or leave the address out"
            ) from error
    engine = None
    try:
        engine = RayEngine(job, workers)
        yield engine
    finally:
        if engine is not None:
            engine.stop()
        if ours:
            ray.shutdown()


def _ray() -> Any:
    """Returns Ray, untyped, so that a type checker finds the same whether Ray is installed or not."""
    return importlib.import_module("ray")


def _restore(handlers: Mapping[int, Any]) -> None:
    """Restores the signal handlers that Ray replaced."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _RemoteTileMaker:
    """Runs in a worker."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads or 1)  # for good: the process does nothing else
        self._maker = TileMaker(job)

    def plan_layer(self, layer: str) -> PlannedLayer:
        """Plans the job's first layer; the plan tells what this worker's pictures are a function of."""
        return self._maker.plan_layer(layer)

    def work(self, layer: str, filters: Sequence[int]) -> tuple[list[Parcel], float]:
        """Returns the tiles of one assignment and the seconds that they took."""
        began = time.perf_counter()
        parcels = list(self._maker.parcels(layer, filters))
        return parcels, time.perf_counter() - began


@dataclass(eq=False)
class _Assignment:
    """Some filters of one layer for one worker.

    Attributes:
        layer: canonical name.
        filters: channels.
        losses: how often a worker was lost while it made them.
    """

    layer: str
    filters: list[int]
    losses: int = 0


@dataclass(eq=False)
class _LayerQueue:
    """What is left to make of one layer.

    Attributes:
        layer: canonical name.
        filters: filters not yet assigned.
        returned: assignments that were lost with their worker.
        seconds: measured seconds per picture; None before the first assignment is done.
    """

    layer: str
    filters: deque[int]
    returned: deque[_Assignment] = field(default_factory=deque)
    seconds: float | None = None

    def next_assignment(self, batch: int, workers: int) -> _Assignment:
        """Returns the next assignment: first one batch, then what takes `ASSIGNMENT_SECONDS`.

        Toward the end, an assignment is at most half of an equal share, so that no worker is left with a long
        one.
        """
        if self.returned:
            return self.returned.popleft()
        count = 1
        if self.seconds is not None:
            count = int(ASSIGNMENT_SECONDS / max(self.seconds * batch, 1e-6))
            count = max(1, min(count, len(self.filters) // (2 * workers * batch)))
        return _Assignment(
            self.layer, [self.filters.popleft() for _ in range(min(count * batch, len(self.filters)))]
        )

    def empty(self) -> bool:
        """Returns whether nothing is left to assign."""
        return not self.filters and not self.returned


class RayEngine:
    """Makes the tiles of one job in Ray's workers.

    Args:
        job: what the pictures are made from.
        workers: number of workers; None takes one per GPU, or one for every `threads` CPUs.
    """

    def __init__(self, job: Job, workers: int | None) -> None:
        self._ray = ray = _ray()
        self._threads = threads = job.threads or 1
        offered = ray.cluster_resources()
        gpus = int(offered.get("GPU", 0)) if job.config.device in ("auto", "cuda") else 0
        if job.config.device == "cuda" and not gpus:
            raise InputError("no machine of the Ray cluster offers a GPU: use --device cpu, or add one")
        self._job = ray.put(job)  # the network is sent once, not once per worker
        self._resources = {"num_cpus": threads, "num_gpus": 1 if gpus else 0}
        self._count = workers or gpus or max(1, int(offered.get("CPU", 1)) // threads)
        self._layer = ""  # the job's first layer, which every worker plans to tell what it makes
        self._first: PlannedLayer | None = None
        self._failed_starts = 0  # in a row
        self._starting: dict[Any, Any] = {}  # future of a worker's plan -> worker
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Assignment]] = {}  # future of tiles -> worker and assignment

    def plan_layer(self, layer: str) -> PlannedLayer:
        """Starts the workers and returns the plan that the first of them makes of the job's first layer."""
        self._layer = layer
        for _ in range(self._count):
            self._start_worker()
        while self._first is None:
            self._accept(self._wait())
        return self._first

    def parcels(self, work: Mapping[str, Sequence[int]], progress: Progress) -> Iterator[Parcel]:
        """Makes tiles layer by layer, of several layers at once if one does not keep all workers busy."""
        if self._first is None:
            raise RuntimeError("call `plan_layer` first: it starts the workers")
        first = self._first
        queues = {layer: _LayerQueue(layer, deque(filters)) for layer, filters in work.items()}
        while self._busy or any(not queue.empty() for queue in queues.values()):
            for queue in queues.values():
                while self._idle and not queue.empty():
                    worker, assignment = self._idle.pop(), queue.next_assignment(first.batch, self._count)
                    future = worker.work.remote(assignment.layer, assignment.filters)
                    self._busy[future] = worker, assignment
            progress.name(f"{len(self._busy)} of {self._count} workers busy")
            ready = self._wait()
            if ready in self._starting:
                self._accept(ready)
                continue
            worker, assignment = self._busy.pop(ready)
            try:
                parcels, seconds = self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise self._cause(error) from error
            except self._ray.exceptions.RayError as error:  # the worker or its result is lost
                self._record_loss(assignment, error)
                queues[assignment.layer].returned.append(assignment)
                with contextlib.suppress(Exception):  # it may be gone
                    self._ray.kill(worker)
                self._start_worker()
                continue
            queues[assignment.layer].seconds = seconds / len(assignment.filters)
            self._idle.append(worker)
            yield from parcels

    def stop(self) -> None:
        """Stops all workers."""
        everyone = [*self._starting.values(), *self._idle, *(worker for worker, _ in self._busy.values())]
        for worker in everyone:
            with contextlib.suppress(Exception):  # it may be gone, and the cluster too
                self._ray.kill(worker)

    def _start_worker(self) -> None:
        """Requests a worker; it starts when the cluster has room for it."""
        remote = self._ray.remote(**self._resources, max_restarts=0, max_task_retries=0)(_RemoteTileMaker)
        worker = remote.remote(self._job)
        self._starting[worker.plan_layer.remote(self._layer)] = worker

    def _wait(self) -> Any:
        """Returns the next future of any worker that is ready."""
        began, warned = time.monotonic(), False
        while True:
            ready, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1, timeout=1.0)
            if ready:
                return ready[0]
            if not warned and not self._busy and time.monotonic() - began > _PATIENCE:
                warned = True
                warnings.warn(
                    f"no worker has started for {_PATIENCE:.0f} seconds: the Ray cluster has no free "
                    f"{'GPU' if self._resources['num_gpus'] else f'set of {self._threads} CPUs'}; waiting",
                    stacklevel=2,
                )

    def _accept(self, ready: Any) -> None:
        """Adds a worker that is ready, if it makes the same pictures as the others."""
        worker = self._starting.pop(ready)
        try:
            planned = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise self._cause(error) from error
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS * self._count:
                raise InputError(
                    f"{self._failed_starts} Ray workers in a row ended while they started "
                    f"({first_line(error)}): check whether memory is short"
                ) from error
            self._start_worker()
            return
        self._failed_starts = 0
        if self._first is None:
            self._first = planned
        elif planned.identity != self._first.identity:
            ours, other = self._first.identity, planned.identity
            name = next(name for name, value in other.items() if ours.get(name) != value)
            raise InputError(
                f"the machines of the Ray cluster would make different pictures: their {name} is "
                f"{other[name]!r} and {ours[name]!r}; use machines that are alike, or pass device, dtype and "
                "kernels"
            )
        self._idle.append(worker)

    def _record_loss(self, assignment: _Assignment, error: Exception) -> None:
        assignment.losses += 1
        if assignment.losses >= _LOSSES:
            filters = assignment.filters
            raise InputError(
                f"{assignment.losses} workers in a row ended while they made the filters {filters[0]} to "
                f"{filters[-1]} of {assignment.layer} ({first_line(error)}): check whether memory is short, "
                "or try a smaller batch"
            ) from error

    def _cause(self, error: Exception) -> Exception:
        """Returns the error that a worker met, as this process would have raised it."""
        cause = getattr(error, "cause", None)
        return cause if isinstance(cause, InputError) else error
