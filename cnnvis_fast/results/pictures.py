"""What `maximize` returns: pictures with their scores, as a sheet, a report or a folder."""

from __future__ import annotations

import base64
import html
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..ascent.plan import Plan
from ..ascent.recovery import explained_lack_of_memory
from ..ascent.status import OK
from ..images.sheets import contact_sheet, status_sheet, to_image
from ..storage.files import png
from ..storage.job_folder import Store
from ..storage.tiles import Record, TileWriter
from .diagnostics import Report, problems, summed_up
from .measures import border, checkerboard, high_frequency_share, saturated_share

OBJECTIVES = "objectives"
"""The layer's name where pictures are not of single channels."""
_KEPT_STEPS = 64  # values of a history in a tile's record


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pictures(Sequence[Tensor]):
    """Finished pictures; as a sequence, their images.

    Attributes:
        plan: the plan that they were made by; of several plans, the first.
        layer: canonical name of the target; "objectives" where the pictures are not of single channels.
        filters: number of every picture: its channel, or its place among the objectives.
        units: what every picture was made for, as text.
        pixels: the pictures as a PNG stores them, uint8 [N, C, H, W].
        images: the pictures, float32 [N, C, H, W] in [0, 1], in steps of 1/255.
        start_scores: objective of the start pictures, float32 [N].
        scores: objective of the finished pictures, in the plain float32 network, float32 [N].
        noise_scores: best score of plain noise in four tries, float32 [N].
        status: "ok", "redirected" (started without a gradient and was helped to one), "dead" (never had one),
            "nonfinite" or "stalled" (does not beat its start).
        history: objective at every step under that step's random transform, float32 [N, steps].
        alpha: where the picture matters, float32 [N, H, W] in [0, 1]: the gradient's magnitude at every
            pixel, summed over all steps, as a share of its 99th percentile in the picture (Fel et al. 2023).
            None unless `alpha=True` was asked for.
        dtype: dtype of the network that made each picture; "float32" where the job's own gave no finite one.
        batch: number of pictures that were computed together; fewer than planned where memory ran out.
        job: what these pictures are a function of.
        robust_score: computes the robust scores of pixels.
        modules: modules of the network in the order of their definition.
    """

    plan: Plan
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
    robust_score: Callable[[Tensor], Tensor]
    modules: Sequence[Record] = ()

    @property
    def images(self) -> Tensor:
        """The pictures, float32 [N, C, H, W] in [0, 1], in steps of 1/255."""
        return self.pixels.float() / 255

    @cached_property
    def robust_scores(self) -> Tensor:
        """The mean objective under 16 fixed transforms, float32 [N]; computed when first read."""
        with explained_lack_of_memory(self.plan):
            return self.robust_score(self.pixels)

    def __len__(self) -> int:
        return len(self.filters)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]

    def sheet(self) -> Image.Image:
        """Draws all pictures on one contact sheet."""
        tiles = [to_image(picture.numpy()) for picture in self.pixels]
        if self.layer != OBJECTIVES:
            return status_sheet(tiles, self.filters, self.status)
        return contact_sheet(tiles, self.units, [status != OK for status in self.status])

    def report(self) -> Report:
        """Reports which pictures have which problems, in words."""
        return summed_up(self.records(), self.job.get("notes", ()))

    def _repr_png_(self) -> bytes:
        """Returns the sheet, for notebooks."""
        return png(self.sheet())

    def _repr_html_(self) -> str:
        """Returns the sheet with a caption, for notebooks."""
        counts = Counter(self.status)
        states = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
        caption = html.escape(f"{self.plan.source.name}, {self.layer}: {len(self)} pictures ({states})")
        data = base64.b64encode(self._repr_png_()).decode()
        image = f'<img style="max-width:100%" alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"

    def records(self) -> list[Record]:
        """Returns the record of every picture, as it is stored in a tile's record."""
        measures = {
            "saturated": saturated_share(self.pixels),
            "high_frequency": high_frequency_share(self.pixels),
            "checkerboard": checkerboard(self.pixels, self.plan.stride),
            "border": border(self.pixels),
        }
        rows = []
        for row, number in enumerate(self.filters):
            record: Record = {
                "model": self.plan.source.name,
                "weights": self.plan.source.weights,
                "layer": self.layer,
                "filter": number,
                "channels": None if self.layer == OBJECTIVES else self.plan.objective.channels,
                "objective": self.units[row],
                "status": self.status[row],
                "score_start": _rounded(self.start_scores[row]),
                "score": _rounded(self.scores[row]),
                "robust_score": _rounded(self.robust_scores[row]),
                "noise_score": _rounded(self.noise_scores[row]),
                "steps": self.plan.config.steps,
                **{name: _rounded(values[row]) for name, values in measures.items()},
                "history": short_history(self.history[row]),
            }
            if self.dtype[row] != self.plan.config.dtype:
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
        """Writes only the tiles, and beside each its alpha where there is one."""
        for row, (number, record) in enumerate(zip(self.filters, self.records(), strict=True)):
            if self.alpha is not None:
                gray = self.alpha[row].mul(255).round().byte()[None]
                store.write_alpha(self.layer, number, gray.numpy())
            store.write(self.layer, number, self.pixels[row].numpy(), record)

    @staticmethod
    def joined(
        parts: Sequence[Pictures], order: Sequence[int] | None = None, modules: Sequence[Record] = ()
    ) -> Pictures:
        """Joins the pictures of several runs.

        Args:
            parts: pictures of each run.
            order: numbers of all pictures in the order wanted; None keeps the order of the runs.
            modules: modules of the network in the order of their definition.
        """
        sizes = [len(part) for part in parts]
        numbers = [number for part in parts for number in part.filters]
        places = list(range(len(numbers))) if order is None else [numbers.index(number) for number in order]

        def tensor(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])[places]

        def listed(name: str) -> list[Any]:
            values = [value for part in parts for value in getattr(part, name)]
            return [values[place] for place in places]

        def robust_score(pixels: Tensor) -> Tensor:
            pieces = pixels[torch.tensor(places).argsort()].split(sizes)
            found = [part.robust_score(piece) for part, piece in zip(parts, pieces, strict=True)]
            return torch.cat(found)[places]

        return Pictures(
            plan=parts[0].plan,
            layer=parts[0].layer,
            filters=listed("filters"),
            units=listed("units"),
            pixels=tensor("pixels"),
            start_scores=tensor("start_scores"),
            scores=tensor("scores"),
            noise_scores=tensor("noise_scores"),
            status=listed("status"),
            history=tensor("history"),
            alpha=None if parts[0].alpha is None else tensor("alpha"),
            dtype=listed("dtype"),
            batch=min(part.batch for part in parts),
            job=parts[0].job,
            robust_score=robust_score,
            modules=modules,
        )


def short_history(history: Tensor) -> list[float | None]:
    """Returns at most 64 values of a history [steps], evenly spaced from first to last, to 4 digits."""
    steps = len(history)
    count = min(steps, _KEPT_STEPS)
    places = [round(index * (steps - 1) / max(count - 1, 1)) for index in range(count)]
    numbers = history[places].tolist()
    return [float(f"{number:.4g}") if math.isfinite(number) else None for number in numbers]


def _rounded(value: Tensor) -> float | None:
    """Returns a number for JSON; None where it is not finite, which JSON cannot write."""
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
