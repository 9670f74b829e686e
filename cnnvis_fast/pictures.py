"""`maximize`: pictures of the filters of one layer."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .config import Config, configure
from .errors import InputError
from .models import Source, describe, open_model, structure_digest, weights_digest
from .plan import Plan, make_plan
from .progress import progress_bar
from .quality import Scorer, high_frequency_share, saturated_share
from .recovery import RecoveringAscent, told_of_memory
from .sheet import status_sheet, to_image
from .store import Store
from .tiles import Record, TileWriter


class Pictures(Sequence[Tensor]):
    """Finished pictures of one layer; as a sequence, its images.

    Attributes:
        layer: canonical name of the target.
        filters: channel of every picture.
        images: float32 [N, C, H, W] in [0, 1], in steps of 1/255 as a PNG stores them.
        start_scores: objective of the start pictures, float32 [N].
        scores: objective of the finished pictures, in the plain float32 network, float32 [N].
        status: "ok", "redirected" (started without a gradient and was helped), "dead" (never had one),
            "nonfinite" or "stalled" (does not beat its start).
        history: objective at every step under that step's random transform, float32 [N, steps].
        dtype: of the network that made each picture; "float32" where the job's own gave no finite one.
        batch: pictures that were computed together; fewer than planned where memory ran out.
        job: what these pictures are a function of.
    """

    def __init__(
        self,
        plan: Plan,
        scorer: Scorer,
        job: dict[str, Any],
        filters: Sequence[int],
        pixels: Tensor,
        start_scores: Tensor,
        scores: Tensor,
        status: Sequence[str],
        history: Tensor,
    ) -> None:
        self._plan, self._scorer = plan, scorer
        self.job, self.layer, self.filters = job, plan.layer, list(filters)
        self.pixels, self.start_scores, self.scores = pixels, start_scores, scores
        self.status, self.history = list(status), history
        self.dtype, self.batch = [plan.config.dtype] * len(self.filters), plan.batch

    @property
    def images(self) -> Tensor:
        """float32 [N, C, H, W] in [0, 1]."""
        return self.pixels.float() / 255

    @cached_property
    def robust_scores(self) -> Tensor:
        """Mean objective under 16 fixed transforms, float32 [N]; computed when first read."""
        with told_of_memory(self._plan):
            return self._scorer.robust_scores(self.pixels, self.filters)

    def __len__(self) -> int:
        return len(self.filters)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]

    def sheet(self) -> Image.Image:
        """All pictures on one contact sheet."""
        tiles = [to_image(picture.numpy()) for picture in self.pixels]
        return status_sheet(tiles, self.filters, self.status)

    def records(self) -> list[Record]:
        """What is known of every picture, as stored beside it."""
        saturated, noisy = saturated_share(self.pixels), high_frequency_share(self.pixels)
        return [
            {
                "model": self._plan.source.name,
                "weights": self._plan.source.weights,
                "layer": self.layer,
                "filter": channel,
                "status": self.status[row],
                "score_start": _rounded(self.start_scores[row]),
                "score": _rounded(self.scores[row]),
                "robust_score": _rounded(self.robust_scores[row]),
                "steps": self._plan.config.steps,
                "saturated": _rounded(saturated[row]),
                "high_frequency": _rounded(noisy[row]),
                "config": self.job["config"],
                **({"dtype": self.dtype[row]} if self.dtype[row] != self._plan.config.dtype else {}),
            }
            for row, channel in enumerate(self.filters)
        ]

    def save(self, out: str | os.PathLike[str]) -> None:
        """Writes tiles, sheet and scores into a folder, in the layout of an atlas.

        Raises:
            InputError: the folder cannot be written, or holds another job.
        """
        with Store(out, self.job).writing() as store:
            self.write_tiles(store)
            store.write_sheet(self.layer)
            store.write_table()

    def write_tiles(self, store: TileWriter) -> None:
        """Writes the tiles alone."""
        for channel, picture, record in zip(self.filters, self.pixels, self.records(), strict=True):
            store.write(self.layer, channel, picture.numpy(), record)


def maximize(
    model: nn.Module | str,
    layer: str,
    filters: Iterable[int] | int | str | None = None,
    *,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Pictures:
    """Makes, for each filter of a layer, a picture that excites it most (Erhan et al. 2009).

    Args:
        model: a network, or a name for `load_model`. It is never changed.
        layer: dotted module path, `convN` (the N-th convolution) or `logits`.
        filters: channels, as numbers or as text like "0-63,100"; all by default.
        weights: of a network given by name, see `load_model`.
        mean: of the preprocessing per channel, if the network's own is not known.
        std: of the preprocessing per channel.
        progress: whether to show a bar; None shows it on a terminal.
        **options: of `Config`: `preset=` "natural", "strong" or "original", `steps=`, `size=`, `seed=`,
            `batch=`, `device=`, `dtype=`, `compile=`, `objective=` and so on.

    Returns:
        The pictures, in the order of `filters`.

    Raises:
        InputError: (a ValueError) an argument is wrong; nothing was run.
    """
    config = configure(**options)
    network = open_model(model, weights)
    source = describe(network, mean, std)
    plan = make_plan(network, layer, config, source)
    chosen = parse_filters(filters, plan.objective.channels, plan.layer)
    job = job_identity(network, source, plan.config, config)
    with progress_bar(len(chosen), plan.layer, progress) as bar:
        parts = []
        for part in produce(plan, job, chosen, bar.reach):
            parts.append(part)
            bar.settle(len(part))
    pictures = Pictures(
        plan,
        parts[0]._scorer,
        job,
        chosen,
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.start_scores for part in parts]),
        torch.cat([part.scores for part in parts]),
        [status for part in parts for status in part.status],
        torch.cat([part.history for part in parts]),
    )
    pictures.dtype = [dtype for part in parts for dtype in part.dtype]
    pictures.batch = min(part.batch for part in parts)
    return pictures


def produce(
    plan: Plan,
    job: dict[str, Any],
    filters: Sequence[int],
    reach: Callable[[float], object] = lambda _: None,
) -> Iterator[Pictures]:
    """Yields the pictures of each batch as it is done.

    Args:
        plan: of the target.
        job: what the pictures are a function of.
        filters: channels.
        reach: told after every step how many pictures of this batch are done, broken ones too.
    """
    ascent, scorer = RecoveringAscent(plan), Scorer(plan)
    for first in range(0, len(filters), plan.batch):
        chunk = filters[first : first + plan.batch]

        def watch(step: int, *_: object, count: int = len(chunk)) -> None:
            reach(count * step / plan.config.steps)

        made = ascent.run(chunk, watch)
        run = made.run
        with told_of_memory(plan):
            start, scores = scorer.scores(run.start, chunk), scorer.scores(run.images, chunk)
        status = [
            "stalled" if fate in ("ok", "redirected") and not end > begin else fate
            for fate, begin, end in zip(run.fate, start.tolist(), scores.tolist(), strict=True)
        ]
        part = Pictures(plan, scorer, job, chunk, run.images, start, scores, status, run.history)
        part.dtype, part.batch = made.dtype, made.batch
        yield part


def _rounded(value: Tensor) -> float | None:
    """A number for JSON, which has none that are not finite."""
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


def parse_filters(filters: Iterable[int] | int | str | None, channels: int, layer: str) -> list[int]:
    """Channels of a layer out of numbers, text like "0-63,100", or None for all, each once.

    Raises:
        InputError: the text cannot be read or a channel does not exist.
    """
    if filters is None:
        return list(range(channels))
    if isinstance(filters, str):
        numbers: list[int] = []
        for part in filters.split(","):
            first, dash, last = part.strip().partition("-")
            readable = first.isdecimal() and (last.isdecimal() or not dash)
            if not readable or not part.isascii() or len(part) > 40:
                raise InputError(
                    f"cannot read the filters {filters[:100]!r}: expected numbers and ranges like 0-63,100"
                )
            low, high = int(first), int(last or first)
            if low > high or high >= channels:
                _refuse_filter(part.strip(), channels, layer)
            numbers.extend(range(low, high + 1))
    else:
        try:
            given = filters if isinstance(filters, Iterable) else [filters]
            numbers = [operator.index(number) for number in given]
        except TypeError as error:
            raise InputError(
                f"`filters` must be whole numbers or text like 0-63,100, got {filters!r}"
            ) from error
    for number in numbers:
        if not 0 <= number < channels:
            _refuse_filter(str(number), channels, layer)
    if not numbers:
        raise InputError("no filters given: pass numbers like 0-63,100, or leave them out for all")
    return list(dict.fromkeys(numbers))


def _refuse_filter(part: str, channels: int, layer: str) -> None:
    raise InputError(f"no filter {part} in {layer}: it has {channels}, numbered 0 to {channels - 1}")


def job_identity(model: nn.Module, source: Source, settled: Config, asked: Config) -> dict[str, Any]:
    """Everything that a picture's bits are a function of, but for its layer and filter.

    Args:
        model: the network, for its weights.
        source: its name and preprocessing.
        settled: the configuration with device, dtype, compile, kernels and size decided.
        asked: the configuration as it came, for the batch.
    """
    config = dataclasses.asdict(settled)
    config["batch"] = asked.batch or "auto"
    device = torch.device(settled.device)
    config["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if config["device"] == "cpu":
        config["threads"] = torch.get_num_threads()
    return {
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": weights_digest(model),
        "structure_sha256": structure_digest(model),
        "mean": list(source.mean),
        "std": list(source.std),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in ("cnnvis_fast", "torch")},
    }
