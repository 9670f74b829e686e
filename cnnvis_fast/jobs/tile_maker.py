"""Makes tiles of one job: all that a process needs for it, and nothing of where they go."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..ascent.plan import Plan, make_plan
from ..config import Config
from ..images.photos import Photograph
from ..networks.preprocessing import Source
from ..storage.tiles import Parcel, job_digest
from .batches import produce
from .identity import job_identity


@dataclass(frozen=True)
class Target:
    """What is known of a layer once it is planned.

    Attributes:
        layer: canonical name.
        channels: of its output; each is a filter.
        batch: pictures that run together.
        job: what the pictures are a function of, but for layer and filter.
    """

    layer: str
    channels: int
    batch: int
    job: dict[str, Any]


class Maker:
    """Makes tiles, and keeps the plan of the last layer with its trunk and compiled step between calls.

    Args:
        network: whose filters they are.
        source: its name and preprocessing.
        config: as asked for.
        threads: of a CPU that it uses; None leaves PyTorch's number.
        start: photo that all pictures start from; None for noise.
    """

    def __init__(
        self,
        network: nn.Module,
        source: Source,
        config: Config,
        threads: int | None,
        start: Photograph | None = None,
    ) -> None:
        self._network, self._source, self._config, self._threads = network, source, config, threads
        self._start = start
        self._plan: Plan | None = None
        self._job: dict[str, Any] = {}

    def target(self, layer: str) -> Target:
        """Plans a layer.

        Raises:
            InputError: layer, size, device or objective do not fit the network.
        """
        with using_threads(self._threads):
            plan = self._planned(layer)
            return Target(plan.layer, plan.objective.channels, plan.batch, self._job)

    def parcels(
        self, layer: str, filters: Sequence[int], reach: Callable[[float], object] = lambda _: None
    ) -> Iterator[Parcel]:
        """Makes tiles of a layer, a batch at a time.

        Args:
            layer: canonical name.
            filters: channels.
            reach: told after every step how many pictures of a batch are done, broken ones too.
        """
        with using_threads(self._threads):
            plan = self._planned(layer)
            digest = job_digest(self._job)
            began = time.perf_counter()
            for part in produce(plan, self._job, filters, reach):
                parcel = Parcel(digest, plan.layer)
                part.write_tiles(parcel)
                parcel.filters = part.filters
                now = time.perf_counter()
                parcel.facts = {
                    "host": platform.node(),
                    "device": plan.config.device,
                    "batch": part.batch,
                    "work_seconds": round(now - began, 3),
                }
                yield parcel
                began = time.perf_counter()

    def _planned(self, layer: str) -> Plan:
        if self._plan is None or self._plan.layer != layer:
            self._plan = None  # before the next one is made: both may not fit into memory
            self._plan = make_plan(self._network, layer, self._config, self._source, self._start)
            if not self._job:
                self._job = job_identity(
                    self._network, self._source, self._plan.config, self._config, self._start
                )
        return self._plan


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """PyTorch's number of CPU threads while open; None leaves it."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
