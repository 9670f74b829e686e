"""Reports the result of a check: differences between tensors as numbers, a table and JSON."""

from __future__ import annotations

import importlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

_HEADER = (
    *("layer", "output", "compared", "max abs", "mean abs", "max rel", "mean rel"),
    *("cosine", "limit", "verdict"),
)
_VERSIONS = ("cnnvis_fast", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Difference:
    """The difference between one way to compute a layer and the ONNX file.

    Attributes:
        layer: dotted name, or `logits`.
        shape: shape of its output for one picture.
        compared: way and dtype: "eager float32" (the plain network), "trunk float32", "trunk bfloat16", or
            with "program", "hooked" (the whole network) or "compiled" instead of "trunk".
        max_absolute: largest absolute difference.
        mean_absolute: mean absolute difference.
        max_relative: the largest as a fraction of the layer's largest absolute value.
        mean_relative: the mean as a fraction of the layer's mean absolute value.
        cosine: cosine of the angle between the two outputs, each taken as one vector.
        limit: largest `max_relative` allowed.
        ok: whether `max_relative` is within the limit.
    """

    layer: str
    shape: tuple[int, ...]
    compared: str
    max_absolute: float
    mean_absolute: float
    max_relative: float
    mean_relative: float
    cosine: float
    limit: float
    ok: bool


@dataclass(frozen=True)
class OnnxReport:
    """All differences, in the order in which the layers run; prints as a table.

    Attributes:
        model: name of the network.
        weights: name of the weights.
        weights_sha256: SHA-256 of all parameters and buffers.
        size: side of the pictures in pixels.
        differences: one difference per layer and comparison.
    """

    model: str
    weights: str
    weights_sha256: str
    size: int
    differences: list[Difference]

    @property
    def ok(self) -> bool:
        """Whether every difference is within its limit."""
        return self.first_bad is None

    @property
    def first_bad(self) -> Difference | None:
        """The first difference, in the order in which the layers run, that is too large."""
        return next((row for row in self.differences if not row.ok), None)

    def as_dict(self) -> dict[str, Any]:
        """Returns the whole report as JSON values; numbers that are not finite are None."""
        rows = [
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in asdict(row).items()
            }
            for row in self.differences
        ]
        return {
            "model": self.model,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "size": self.size,
            "ok": self.ok,
            "first_bad": self.first_bad and self.first_bad.layer,
            "versions": {name: importlib.import_module(name).__version__ for name in _VERSIONS},
            "differences": rows,
        }

    def summary(self) -> str:
        """Returns the verdict in one line."""
        count = len({row.layer for row in self.differences})
        if (bad := self.first_bad) is not None:
            wrong = len({row.layer for row in self.differences if not row.ok})
            return (
                f"{wrong} of {count} layers of {self.model} differ; in the first, {bad.layer}, "
                f"{bad.compared} is {bad.max_relative:.1e} of the largest value off ({bad.limit:.1e} allowed)"
            )
        worst = {
            name: max(row.max_relative for row in self.differences if row.compared.endswith(name))
            for name in dict.fromkeys(row.compared.split()[1] for row in self.differences)
        }
        listed = ", ".join(f"{value:.1e} in {name}" for name, value in worst.items())
        return f"{count} of {count} layers of {self.model} agree; at most {listed} of the largest value off"

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [_HEADER]
        for row in self.differences:
            shape = " x ".join(map(str, row.shape))
            numbers = (row.max_absolute, row.mean_absolute, row.max_relative, row.mean_relative)
            ends = (f"{row.cosine:.7f}", f"{row.limit:.1e}", "ok" if row.ok else "BAD")
            cells.append((row.layer, shape, row.compared, *(f"{number:.1e}" for number in numbers), *ends))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def difference(layer: str, compared: str, found: Tensor, expected: Tensor, limit: float) -> Difference:
    """Returns the difference of `found` from `expected`, both [B, ...]. Another shape counts as NaN."""
    if found.shape != expected.shape:
        found = torch.full_like(expected, math.nan)
    found, expected = found.double(), expected.double()
    apart = (found - expected).abs()
    largest, mean = float(expected.abs().max()), float(expected.abs().mean())
    norms = float(found.norm() * expected.norm())
    max_relative = _share(float(apart.max()), largest)
    return Difference(
        layer=layer,
        shape=tuple(expected.shape[1:]),
        compared=compared,
        max_absolute=float(apart.max()),
        mean_absolute=float(apart.mean()),
        max_relative=max_relative,
        mean_relative=_share(float(apart.mean()), mean),
        cosine=float((found * expected).sum()) / norms if norms else float(torch.equal(found, expected)),
        limit=limit,
        ok=max_relative <= limit,  # False for NaN
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.inf * part if part else 0.0
