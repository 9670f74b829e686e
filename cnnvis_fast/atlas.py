"""`atlas`: the pictures of whole layers as a resumable job in a folder."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from .config import Config, configure
from .errors import InputError
from .layers import LOGITS, convolutions, module_order, resolve
from .layers import layers as list_layers
from .models import Source, describe, open_model
from .objectives import Photograph
from .photos import Photo
from .pictures import job_identity, parse_filters, produce
from .plan import Plan, make_plan
from .readouts import neuron_position
from .store import Record, Store

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
    **options: Any,
) -> Atlas:
    """Makes the tiles of whole layers in a folder; called again, it makes what is missing.

    Args:
        model: a network, or a name for `load_model`.
        layers: names, "all" for every convolution, None for the last convolution.
        out: the folder, see `store` for its layout. A folder of another job is refused.
        filters: as for `maximize`, the same for every layer.
        weights: of a network given by name, see `load_model`.
        mean: as for `maximize`.
        std: as for `maximize`.
        start: as for `maximize`.
        progress: as for `maximize`.
        **options: as for `maximize`.

    Raises:
        InputError: (a ValueError) an argument is wrong; nothing was written.
        KeyboardInterrupt: finished tiles stay, with sheet and table; call again to go on.
    """
    config = configure(**options)
    network = open_model(model, weights)
    source = describe(network, mean, std, config.size)
    names = _layer_names(network, layers)
    if isinstance(filters, Iterable) and not isinstance(filters, str):
        filters = list(filters)
    if len(names) > 1:
        _check_all(network, names, filters, config, source)
    photo = None if start is None else Photograph.of(start)
    first = make_plan(network, names[0], config, source, photo)
    parse_filters(filters, first.objective.channels, first.layer)
    job = job_identity(network, source, first.config, config, photo)
    store = Store(out, job)
    store.write_layers(module_order(network))
    began, made = time.perf_counter(), 0
    try:
        for name in names:
            plan = first if name == first.layer else make_plan(network, name, config, source, photo)
            made += _make_layer(plan, store, job, filters, progress)
    finally:
        store.write_table()
    return Atlas(store, names, made, time.perf_counter() - began)


def _make_layer(
    plan: Plan,
    store: Store,
    job: dict[str, Any],
    filters: Iterable[int] | int | str | None,
    progress: bool | None,
) -> int:
    wanted = parse_filters(filters, plan.objective.channels, plan.layer)
    finished = store.finished(plan.layer)
    missing = [channel for channel in wanted if channel not in finished]
    _LOG.info(
        "%s: %d of %d pictures to make, %d at a time on %s in %s",
        *(plan.layer, len(missing), len(wanted), plan.batch, plan.config.device, plan.config.dtype),
    )
    made = 0
    try:
        began = time.perf_counter()
        for part in produce(plan, job, missing, progress) if missing else ():
            part.write_tiles(store)
            made += len(part)
            now = time.perf_counter()
            store.log(
                {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    "host": platform.node(),
                    "layer": plan.layer,
                    "filters": part.filters,
                    "batch": plan.batch,
                    "device": plan.config.device,
                    "seconds": round(now - began, 3),
                }
            )
            began = now
    finally:
        if made or not missing:
            store.write_sheet(plan.layer)
    return made


def _layer_names(model: nn.Module, layers: Sequence[str] | str | None) -> list[str]:
    every = list(convolutions(model).values())
    if layers is None or layers in ("all", [], ()):
        if not every:
            raise InputError(
                f"{type(model).__name__} has no convolution: name a layer, as `layers` lists them"
            )
        return every if layers == "all" else every[-1:]
    if not isinstance(layers, Iterable):
        raise InputError(f'`layers` must be names, "all" or None, got {layers!r}')
    chosen = [layers] if isinstance(layers, str) else layers
    return list(dict.fromkeys(resolve(model, name) for name in chosen))


def _check_all(
    model: nn.Module,
    names: Sequence[str],
    filters: Iterable[int] | int | str | None,
    config: Config,
    source: Source,
) -> None:
    """Refuses, before anything is written, a list of layers of which a later one would fail."""
    table = list_layers(model, size=config.size or source.size, channels=len(source.mean))
    known = {row.name: row for row in table}
    for name in names:
        if name not in known:
            what = "output" if name == LOGITS else f"layer {name!r}"
            raise InputError(f"the {what} yields no maps or vector: pick layers that `layers` lists")
        row = known[name]
        parse_filters(filters, row.channels, name)
        size = [row.height, row.width] if row.height else []
        neuron_position(config.objective, config.position, size, name)
