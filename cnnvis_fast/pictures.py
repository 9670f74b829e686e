"""`maximize`: pictures of the filters of one layer."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import importlib.metadata
import math
import operator
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .config import Config, configure
from .diagnostics import Report, border, checkerboard, preprocessing_note, problems, summed_up
from .errors import InputError
from .expressions import form_of
from .files import png
from .layers import module_order, resolve
from .models import Source, describe, open_model, structure_digest, weights_digest
from .natural import read_statistics
from .objectives import Objective, Photograph, Unit, parse, reads_as_objective
from .photos import Photo
from .plan import Plan, make_plan, plan_objectives
from .progress import progress_bar
from .quality import Scorer, high_frequency_share, saturated_share
from .readouts import Asked
from .recovery import RecoveringAscent, told_of_memory
from .sheet import contact_sheet, status_sheet, to_image
from .store import Store
from .tiles import Record, TileWriter

_KEPT_STEPS = 64  # of a history, in a tile's record


class Pictures(Sequence[Tensor]):
    """Finished pictures; as a sequence, its images.

    Attributes:
        layer: canonical name of the target; "objectives" where the pictures are not of single channels.
        filters: number of every picture: its channel, or its place among the objectives.
        units: what every picture was made for, as text.
        images: float32 [N, C, H, W] in [0, 1], in steps of 1/255 as a PNG stores them.
        alpha: where the picture matters, float32 [N, H, W] in [0, 1]: the gradient's magnitude at every
            pixel, gathered over all steps, as a share of what all but the strongest percent stay below (Fel
            et al. 2023). None unless `alpha=True` was asked for.
        start_scores: objective of the start pictures, float32 [N].
        scores: objective of the finished pictures, in the plain float32 network, float32 [N].
        noise_scores: the best that plain noise reaches in four tries, float32 [N].
        status: "ok", "redirected" (started without a gradient and was helped), "dead" (never had one),
            "nonfinite" or "stalled" (does not beat its start).
        history: objective at every step under that step's random transform, float32 [N, steps].
        dtype: of the network that made each picture; "float32" where the job's own gave no finite one.
        batch: pictures that were computed together; fewer than planned where memory ran out.
        job: what these pictures are a function of.
        modules: of the network in order, see `layers.module_order`.
    """

    layer: str
    filters: list[int]
    units: list[str]
    pixels: Tensor
    start_scores: Tensor
    scores: Tensor
    noise_scores: Tensor
    status: list[str]
    history: Tensor
    alpha: Tensor | None
    dtype: list[str]
    batch: int
    job: dict[str, Any]
    modules: Sequence[Record] = ()

    def __init__(
        self, plan: Plan, job: dict[str, Any], score: Callable[[Tensor], Tensor], **found: Any
    ) -> None:
        self._plan, self.job, self._score = plan, job, score
        self.__dict__.update(found)

    @property
    def images(self) -> Tensor:
        """float32 [N, C, H, W] in [0, 1]."""
        return self.pixels.float() / 255

    @cached_property
    def robust_scores(self) -> Tensor:
        """Mean objective under 16 fixed transforms, float32 [N]; computed when first read."""
        with told_of_memory(self._plan):
            return self._score(self.pixels)

    def __len__(self) -> int:
        return len(self.filters)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]

    def sheet(self) -> Image.Image:
        """All pictures on one contact sheet."""
        tiles = [to_image(picture.numpy()) for picture in self.pixels]
        if self.layer != OBJECTIVES:
            return status_sheet(tiles, self.filters, self.status)
        return contact_sheet(tiles, self.units, [word != "ok" for word in self.status])

    def report(self) -> Report:
        """What is wrong with which picture, in words: see `diagnostics`."""
        return summed_up(self.records(), self.job.get("notes", ()))

    def _repr_png_(self) -> bytes:
        """The sheet, for notebooks."""
        return png(self.sheet())

    def _repr_html_(self) -> str:
        """The sheet with a line about it, for notebooks."""
        counts = Counter(self.status)
        states = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
        caption = html.escape(f"{self._plan.source.name}, {self.layer}: {len(self)} pictures ({states})")
        data = base64.b64encode(self._repr_png_()).decode()
        image = f'<img style="max-width:100%" alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"

    def records(self) -> list[Record]:
        """What is known of every picture, as stored beside it."""
        measures = {
            "saturated": saturated_share(self.pixels),
            "high_frequency": high_frequency_share(self.pixels),
            "checkerboard": checkerboard(self.pixels, self._plan.stride),
            "border": border(self.pixels),
        }
        rows = []
        for row, number in enumerate(self.filters):
            record: Record = {
                "model": self._plan.source.name,
                "weights": self._plan.source.weights,
                "layer": self.layer,
                "filter": number,
                "channels": None if self.layer == OBJECTIVES else self._plan.objective.channels,
                "objective": self.units[row],
                "status": self.status[row],
                "score_start": _rounded(self.start_scores[row]),
                "score": _rounded(self.scores[row]),
                "robust_score": _rounded(self.robust_scores[row]),
                "noise_score": _rounded(self.noise_scores[row]),
                "steps": self._plan.config.steps,
                **{name: _rounded(values[row]) for name, values in measures.items()},
                "history": short_history(self.history[row]),
            }
            if self.dtype[row] != self._plan.config.dtype:
                record["dtype"] = self.dtype[row]
            rows.append({**record, "problems": "; ".join(problems(record)), "config": self.job["config"]})
        return rows

    def save(self, out: str | os.PathLike[str]) -> None:
        """Writes tiles, sheet and scores into a folder, in the layout of an atlas.

        Raises:
            InputError: the folder cannot be written, or holds another job.
        """
        with Store(out, self.job).writing() as store:
            store.write_layers(self.modules)
            self.write_tiles(store)
            store.write_sheet(self.layer)
            store.write_table()

    def write_tiles(self, store: TileWriter) -> None:
        """Writes the tiles alone, and where there is one each tile's alpha beside it."""
        for row, (number, record) in enumerate(zip(self.filters, self.records(), strict=True)):
            if self.alpha is not None:
                grey = self.alpha[row].mul(255).round().byte()[None]
                store.write_alpha(self.layer, number, grey.numpy())
            store.write(self.layer, number, self.pixels[row].numpy(), record)

    @staticmethod
    def joined(parts: Sequence[Pictures], order: Sequence[int] | None = None) -> Pictures:
        """Pictures of several runs as one, in the order of their numbers' places in `order`."""
        sizes = [len(part) for part in parts]
        numbers = [number for part in parts for number in part.filters]
        places = range(len(numbers)) if order is None else [numbers.index(number) for number in order]

        def together(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])[list(places)]

        def score(pixels: Tensor) -> Tensor:
            pieces = pixels[torch.tensor(list(places)).argsort()].split(sizes)
            found = [part._score(piece) for part, piece in zip(parts, pieces, strict=True)]
            return torch.cat(found)[list(places)]

        names = ("pixels", "start_scores", "scores", "noise_scores", "history")
        lists = {
            name: [value for part in parts for value in getattr(part, name)]
            for name in ("filters", "units", "status", "dtype")
        }
        return Pictures(
            parts[0]._plan,
            parts[0].job,
            score,
            layer=parts[0].layer,
            alpha=None if parts[0].alpha is None else together("alpha"),
            batch=min(part.batch for part in parts),
            **{name: together(name) for name in names},
            **{name: [values[place] for place in places] for name, values in lists.items()},
        )


OBJECTIVES = "objectives"
"""Stands for the layer where pictures are not of single channels."""


def maximize(
    model: nn.Module | str,
    layer: str | Objective | Sequence[str | Objective],
    filters: Iterable[int] | int | str | None = None,
    *,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    start: Photo | Photograph | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Pictures:
    """Makes, for each filter of a layer or each objective, the picture that excites it most (Erhan 2009).

    Args:
        model: a network, or a name for `load_model`. It is never changed.
        layer: dotted module path, `convN` (the N-th convolution) or `logits`; or one or several objectives of
            `cnnvis_fast.objectives`, as such or as text like "conv5:3 + 0.5*conv2:7".
        filters: channels of the layer, as numbers or as text like "0-63,100"; all by default. Not with
            objectives.
        weights: of a network given by name, see `load_model`.
        mean: of the preprocessing per channel, if the network's own is not known.
        std: of the preprocessing per channel.
        start: a photo that the pictures start from, instead of noise.
        progress: whether to show a bar; None shows it on a terminal.
        **options: of `Config`: `preset=` "natural", "strong" or "original", `steps=`, `size=`, `seed=`,
            `batch=`, `device=`, `dtype=`, `compile=`, `objective=` and so on.

    Returns:
        The pictures, in the order of `filters` or of the objectives.

    Raises:
        InputError: (a ValueError) an argument is wrong; nothing was run.
    """
    config = configure(**options)
    wanted = asked_objectives(layer)
    network = open_model(model, weights)
    source = describe(network, mean, std, config.size)
    photo = None if start is None else Photograph.of(start)
    if wanted is not None:
        if filters is not None:
            raise InputError("`filters` are channels of a layer: leave them out where objectives are given")
        wanted = [one.renamed(lambda name: resolve(network, name)) for one in wanted]
        one_layer = plain_channels(wanted)
        if one_layer is None:
            return _maximize_objectives(network, wanted, config, source, photo, progress)
        layer, filters = one_layer
        config = dataclasses.replace(config, objective="channel", position=None)
    plan = make_plan(network, str(layer), config, source, photo)
    chosen = parse_filters(filters, plan.objective.channels, plan.layer)
    job = job_identity(network, source, plan.config, config, photo)
    with progress_bar(len(chosen), plan.layer, progress) as bar:
        parts = []
        for part in produce(plan, job, chosen, bar.reach):
            parts.append(part)
            bar.settle(len(part))
    return _of_network(Pictures.joined(parts), network)


def _of_network(pictures: Pictures, network: nn.Module) -> Pictures:
    pictures.modules = module_order(network)
    return pictures


def asked_objectives(layer: Any) -> list[Objective] | None:
    """The objectives that stand in place of a layer's name; None for a name.

    Raises:
        InputError: they are of another kind, or there are none.
    """
    if isinstance(layer, str) and not reads_as_objective(layer):
        return None
    several = [layer] if isinstance(layer, str | Objective) else layer
    if not isinstance(several, Iterable) or not (listed := list(several)):
        raise InputError(f"`layer` must be a layer's name, an objective or several of them, got {layer!r}")
    for one in listed:
        if not isinstance(one, str | Objective):
            raise InputError(f"an objective must be of `cnnvis_fast.objectives` or text, got {one!r}")
    return [parse(one) if isinstance(one, str) else one for one in listed]


def plain_channel(objective: Objective) -> Unit | None:
    """The channel that an objective is all about, from noise or whatever all start from; else None."""
    (weight, term), *more = objective.terms
    if more or weight != 1 or not isinstance(term, Unit) or term.position is not None:
        return None
    return None if objective.start is not None or objective.key else term


def plain_channels(objectives: Sequence[Objective]) -> tuple[str, list[int]] | None:
    """Layer and channels where all objectives are single channels of one layer, each once; else None."""
    units = [unit for unit in map(plain_channel, objectives) if unit is not None]
    layers, numbers = {unit.layer for unit in units}, [unit.unit for unit in units]
    same = len(units) == len(objectives) and len(layers) == 1 and len(set(numbers)) == len(numbers)
    return (units[0].layer, numbers) if same else None


def _maximize_objectives(
    network: nn.Module,
    objectives: list[Objective],
    config: Config,
    source: Source,
    photo: Photograph | None,
    progress: bool | None,
) -> Pictures:
    """Pictures of any objectives: those of one form run together."""
    forms: dict[Any, list[int]] = {}
    for number, one in enumerate(objectives):
        unit = plain_channel(one)  # these get the very pictures that their layer's own job makes
        forms.setdefault(form_of(one) if unit is None else unit.layer, []).append(number)
    plans: list[Plan] = []
    asked: list[Sequence[Asked]] = []
    for form, numbers in forms.items():
        members = [objectives[number] for number in numbers]
        if isinstance(form, str):
            channels = dataclasses.replace(config, objective="channel", position=None)
            plan = make_plan(network, form, channels, source, photo)
            units = [unit.unit for unit in map(plain_channel, members) if unit is not None]
            parse_filters(units, plan.objective.channels, plan.layer)
            asked.append(units)
        else:
            places, size = [one.group[0] for one in members], form[1]
            if size > 1 and places != list(range(size)) * (len(places) // size):
                raise InputError(
                    "pictures that differ must be passed whole and in order, as `diverse` gives them"
                )
            plan = plan_objectives(network, members, config, source, photo)
            asked.append(members)
        plans.append(plan)
    job = job_identity(network, source, plans[0].config, config, photo)
    job["objectives"] = [str(one) for one in objectives]
    parts = []
    with progress_bar(len(objectives), "objectives", progress) as bar:
        for plan, some, numbers in zip(plans, asked, forms.values(), strict=True):
            for part in produce(plan, job, some, bar.reach, numbers):
                parts.append(part)
                bar.settle(len(part))
    return _of_network(Pictures.joined(parts, range(len(objectives))), network)


def produce(
    plan: Plan,
    job: dict[str, Any],
    asked: Sequence[Asked],
    reach: Callable[[float], object] = lambda _: None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Pictures]:
    """Yields the pictures of each batch as it is done.

    Args:
        plan: of channels, or of objectives.
        job: what the pictures are a function of.
        asked: channels or objectives.
        reach: told after every step how many pictures of this batch are done, broken ones too.
        numbers: of objectives.
    """
    ascent, scorer = RecoveringAscent(plan), Scorer(plan)
    for first in range(0, len(asked), plan.batch):
        chunk = asked[first : first + plan.batch]

        def watch(step: int, *_: object, count: int = len(chunk)) -> None:
            reach(count * step / plan.config.steps)

        made = ascent.run(chunk, watch)
        run = made.run
        with told_of_memory(plan):
            start, scores = scorer.scores(run.start, chunk), scorer.scores(run.images, chunk)
            noise = scorer.noise_scores(chunk)
        status = [
            "stalled" if fate in ("ok", "redirected") and not end > begin else fate
            for fate, begin, end in zip(run.fate, start.tolist(), scores.tolist(), strict=True)
        ]
        channels = [one for one in chunk if isinstance(one, int)]
        yield Pictures(
            plan,
            job,
            functools.partial(scorer.robust_scores, filters=chunk),
            layer=plan.layer if numbers is None else OBJECTIVES,
            filters=channels if numbers is None else list(numbers[first : first + plan.batch]),
            units=[f"{plan.layer}:{one}" if isinstance(one, int) else str(one) for one in chunk],
            pixels=run.images,
            start_scores=start,
            scores=scores,
            noise_scores=noise,
            status=status,
            history=run.history,
            alpha=None if run.alpha is None else _normalized_alpha(run.alpha),
            dtype=made.dtype,
            batch=made.batch,
        )


def _normalized_alpha(gathered: Tensor) -> Tensor:
    """Sums of magnitudes [N, H, W] as shares in [0, 1] of each picture's 99th percentile."""
    top = gathered.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return (gathered / top[:, None, None]).clamp(0, 1)


def short_history(history: Tensor) -> list[float | None]:
    """At most 64 values of a history [steps] at even distances, first and last among them, in 4 digits."""
    steps = len(history)
    count = min(steps, _KEPT_STEPS)
    places = [round(index * (steps - 1) / max(count - 1, 1)) for index in range(count)]
    numbers = history[places].tolist()
    return [float(f"{number:.4g}") if math.isfinite(number) else None for number in numbers]


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


def job_identity(
    model: nn.Module, source: Source, settled: Config, asked: Config, start: Photograph | None = None
) -> dict[str, Any]:
    """Everything that a picture's bits are a function of, but for its layer and filter.

    Args:
        model: the network, for its weights.
        source: its name and preprocessing.
        settled: the configuration with device, dtype, compile, kernels and size decided.
        asked: the configuration as it came, for the batch.
        start: photo that all pictures start from.
    """
    config = dataclasses.asdict(settled)
    if settled.statistics is not None:
        config["statistics"] = read_statistics(settled.statistics).digest
    config["batch"] = asked.batch or "auto"
    device = torch.device(settled.device)
    config["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if config["device"] == "cpu":
        config["threads"] = torch.get_num_threads()
    note = preprocessing_note(model, source, int(settled.size or source.size))
    if note:
        warnings.warn(note, stacklevel=3)
    return {
        **({"notes": [note]} if note else {}),
        **({"start": start.digest} if start else {}),
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": weights_digest(model),
        "structure_sha256": structure_digest(model),
        "mean": list(source.mean),
        "std": list(source.std),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in ("cnnvis_fast", "torch")},
    }
