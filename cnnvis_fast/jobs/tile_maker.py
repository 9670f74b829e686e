"""Makes the tiles of one job in one process; does not know where they are stored."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..ascent.plan import Plan, make_plan
from ..storage.tiles import Parcel, job_digest
from .batches import produce
from .identity import job_identity
from .job import Job


@dataclass(frozen=True)
class PlannedLayer:
    """What is known about a layer once it is planned.

    Attributes:
        layer: canonical name.
        channels: number of channels of its output; each is a filter.
        batch: pictures that run together.
        identity: what the job's pictures are a function of, except layer and filter.
    """

    layer: str
    channels: int
    batch: int
    identity: dict[str, Any]


class TileMaker:
    """Makes the tiles of a job; keeps the last layer's plan, with trunk and compiled step, between calls."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._plan: Plan | None = None
        self._identity: dict[str, Any] = {}

    def plan_layer(self, layer: str) -> PlannedLayer:
        """Plans a layer.

        Raises:
            InputError: layer, size, device or objective do not fit the network.
        """
        with using_threads(self._job.threads):
            plan = self._planned(layer)
            return PlannedLayer(plan.layer, plan.objective.channels, plan.batch, self._identity)

    def parcels(
        self, layer: str, filters: Sequence[int], reach: Callable[[float], object] = lambda _: None
    ) -> Iterator[Parcel]:
        """Makes tiles of a layer and yields them batch by batch.

        Args:
            layer: canonical name.
            filters: channels.
            reach: called after every step with the number of pictures of the batch that are done, which may
                be a fraction.
        """
        with using_threads(self._job.threads):
            plan = self._planned(layer)
            digest = job_digest(self._identity)
            began = time.perf_counter()
            for pictures in produce(plan, self._identity, filters, reach):
                parcel = Parcel(digest, plan.layer)
                pictures.write_tiles(parcel)
                parcel.filters = pictures.filters
                now = time.perf_counter()
                parcel.facts = {
                    "host": platform.node(),
                    "device": plan.config.device,
                    "batch": pictures.batch,
                    "work_seconds": round(now - began, 3),
                }
                yield parcel
                began = time.perf_counter()

    def _planned(self, layer: str) -> Plan:
        if self._plan is None or self._plan.layer != layer:
            job = self._job
            self._plan = None  # before the next plan is made: memory may not hold both
            self._plan = make_plan(job.network, layer, job.config, job.source, job.start)
            if not self._identity:
                self._identity = job_identity(job, self._plan.config)
        return self._plan


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Sets PyTorch's number of CPU threads while open; None keeps it."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
