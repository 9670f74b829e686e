"""What `maximize` yields: pictures with their scores, as a sheet, a report or a folder."""

from __future__ import annotations

import base64
import html
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..ascent.plan import Plan
from ..ascent.recovery import told_of_memory
from ..images.sheets import contact_sheet, status_sheet, to_image
from ..storage.files import png
from ..storage.job_folder import Store
from ..storage.tiles import Record, TileWriter
from .diagnostics import Report, problems, summed_up
from .measures import border, checkerboard, high_frequency_share, saturated_share

OBJECTIVES = "objectives"
"""Stands for the layer where pictures are not of single channels."""
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
