"""Finds problems that raise no error: measures each picture, names its problems and sums them up in words.

Each problem has a name, which `scores.csv` lists for each tile, and a hint, which is shown once at the end
of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ascent.status import DEAD, NONFINITE, OK, REDIRECTED, STALLED

MOST_SATURATED, MOST_HIGH_FREQUENCY = 0.3, 0.4
MOST_CHECKERBOARD, MOST_BORDER = 0.05, 2.5

HINTS = {
    DEAD: "no gradient reaches the picture: try another seed, another layer below it, or a higher `noise`",
    NONFINITE: "numbers overflowed: try dtype float32",
    REDIRECTED: "they started without a gradient and were helped to one",
    STALLED: "they do not beat their start: try more steps or a higher rate",
    "below noise": "plain noise excites the unit more: try more steps, or the preset strong",
    "saturated": f"over {100 * MOST_SATURATED:.0f} % of the values are black or white: try a lower rate or "
    "amplitude, or `l2`",
    "noisy": "most of the contrast is pixel noise: try the preset natural, a higher decay, or `blur`",
    "checkerboard": "there is a grid at the network's stride: use the transforms affine, or turn further",
    "border": "the border is far stronger than the middle: use the transforms affine, or `crop`",
}


def problems(record: Mapping[str, Any]) -> list[str]:
    """Returns the names of the problems of a picture, from its record."""
    found = [record["status"]] if record["status"] != OK else []
    noise, score = record.get("noise_score"), record.get("score")
    if noise is not None and score is not None and score <= noise and not found:
        found.append("below noise")
    limits = {
        "saturated": MOST_SATURATED,
        "high_frequency": MOST_HIGH_FREQUENCY,
        "checkerboard": MOST_CHECKERBOARD,
        "border": MOST_BORDER,
    }
    names = {"high_frequency": "noisy"}
    for measure, limit in limits.items():
        value = record.get(measure)
        if value is not None and value > limit:
            found.append(names.get(measure, measure))
    return found


@dataclass(frozen=True)
class Report:
    """Which pictures have which problems.

    Attributes:
        count: number of all pictures.
        problems: labels of the pictures that have a problem, by its name.
        notes: problems of the whole run, one sentence each.
    """

    count: int
    problems: dict[str, list[str]]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems and not self.notes

    def __str__(self) -> str:
        lines = list(self.notes)
        for name, labels in self.problems.items():
            few = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            lines.append(f"{len(labels)} of {self.count} {name} ({few}): {HINTS[name]}")
        return "\n".join(lines) or f"{self.count} pictures, nothing wrong found"

    __repr__ = __str__


def summed_up(records: Iterable[Mapping[str, Any]], notes: Sequence[str] = ()) -> Report:
    """Returns the report on pictures, from their records and the notes on their run."""
    found: dict[str, list[str]] = {}
    rows = list(records)
    for record in rows:
        label = str(record.get("objective") or f"{record['layer']}:{record['filter']}")
        for name in problems(record):
            found.setdefault(name, []).append(label)
    return Report(len(rows), {name: found[name] for name in HINTS if name in found}, tuple(notes))
