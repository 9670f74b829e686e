"""What can go wrong without an error: measured per picture, named, and summed up in words.

Each problem has a name, which `scores.csv` lists per tile, and a hint, which a run's end tells once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import evaluating
from .models import Source
from .natural import literature, natural_pictures
from .randomness import uniforms

MOST_SATURATED, MOST_HIGH_FREQUENCY = 0.3, 0.4
MOST_CHECKERBOARD, MOST_BORDER = 0.05, 2.5
_FAR = 6.0  # spreads by which a batch norm's input may differ from what it was trained on
_FACTOR = 8.0  # by which its variance may differ

HINTS = {
    "dead": "no gradient reaches the picture: try another seed, another layer below it, or a higher `noise`",
    "nonfinite": "numbers overflowed: try dtype float32",
    "redirected": "they started without a gradient and were helped to one",
    "stalled": "they do not beat their start: try more steps or a higher rate",
    "below noise": "plain noise excites the unit more: try more steps, or the preset strong",
    "saturated": "over a third of the values are black or white: try a lower rate or amplitude, or `l2`",
    "noisy": "most of the contrast is pixel noise: try the preset natural, a higher decay, or `blur`",
    "checkerboard": "there is a grid at the network's stride: use the transforms affine, or turn further",
    "border": "the border is far stronger than the middle: use the transforms affine, or `crop`",
}


def problems(record: Mapping[str, Any]) -> list[str]:
    """Names of what is wrong with a picture, by its record."""
    found = [record["status"]] if record["status"] != "ok" else []
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
    """What is wrong with which pictures.

    Attributes:
        count: of all pictures.
        problems: name to the labels of the pictures that have it.
        notes: what is wrong with the whole run, one sentence each.
    """

    count: int
    problems: dict[str, list[str]]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems and not self.notes

    def __str__(self) -> str:
        lines = list(self.notes)
        for name, labels in self.problems.items():
            few = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            lines.append(f"{len(labels)} of {self.count} {name} ({few}): {HINTS[name]}")
        return "\n".join(lines) or f"{self.count} pictures, nothing wrong found"

    __repr__ = __str__


def summed_up(records: Iterable[Mapping[str, Any]], notes: Sequence[str] = ()) -> Report:
    """The report on some pictures."""
    found: dict[str, list[str]] = {}
    rows = list(records)
    for record in rows:
        label = str(record.get("objective") or f"{record['layer']}:{record['filter']}")
        for name in problems(record):
            found.setdefault(name, []).append(label)
    return Report(len(rows), {name: found[name] for name in HINTS if name in found}, tuple(notes))


def checkerboard(pictures: Tensor, stride: int) -> Tensor:
    """Share of power in spikes at whole multiples of 1 / stride, which a network's pooling leaves behind.

    Counted is what a multiple has above the mean of the frequencies around it, under a Hann window, for
    multiples at which not both directions are 0; a photograph has next to nothing there.

    Args:
        pictures: uint8 [N, C, H, W].
        stride: of the target in pixels; below 2 nothing is counted. Longer periods than 8 pixels are not, as
            there pictures have structure of their own.

    Returns:
        float32 [N].
    """
    size = pictures.shape[-1]
    period = min(8, 2 ** int(math.log2(stride))) if stride >= 2 else 1
    if period < 2 or size < 8 * period or pictures.shape[-2] != size:
        return torch.zeros(len(pictures))
    values = pictures.float().mean(1) / 255
    window = torch.hann_window(size, periodic=False)
    values = (values - values.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(values).abs().square()
    excess = torch.zeros(len(pictures))
    for row in range(period):
        for column in range(period):
            if row == column == 0:
                continue
            middle = round(row * size / period), round(column * size / period)
            near, around = _near(power, middle, 1), _near(power, middle, 3)
            background = (around.sum((1, 2)) - near.sum((1, 2))) / (49 - 9)
            excess += (near.sum((1, 2)) - 9 * background).clamp_min(0)
    return excess / power.sum((1, 2)).clamp_min(1e-12)


def _near(power: Tensor, middle: tuple[int, int], reach: int) -> Tensor:
    rows, columns = (torch.arange(at - reach, at + reach + 1) % power.shape[1] for at in middle)
    return power[:, rows][:, :, columns]


def border(pictures: Tensor) -> Tensor:
    """Contrast within 4 % of the border over contrast further in, uint8 [N, C, H, W] to float32 [N].

    Contrast is the mean absolute difference of neighbours.
    """
    values = pictures.float().mean(1) / 255
    height, width = values.shape[1:]
    edge = max(1, round(0.04 * min(height, width)))
    if min(height, width) < 4 * edge + 2:
        return torch.ones(len(pictures))
    changes = torch.zeros_like(values)
    changes[:, 1:] += values.diff(dim=1).abs()
    changes[:, :, 1:] += values.diff(dim=2).abs()
    inner = changes[:, edge:-edge, edge:-edge].mean((1, 2))
    whole, share = changes.mean((1, 2)), (height - 2 * edge) * (width - 2 * edge) / (height * width)
    outer = (whole - share * inner) / (1 - share)
    return outer / inner.clamp_min(1e-3)


class _FirstNorm(Exception):
    """Carries the first batch norm and its input out of a forward pass."""

    def __init__(self, norm: nn.Module, x: Tensor) -> None:
        self.norm, self.x = norm, x


@torch.no_grad()
def preprocessing_note(model: nn.Module, source: Source, size: int) -> str | None:
    """Tells if pictures with natural colours and spectrum look to the first batch norm unlike its training.

    Its running mean and variance are those of the training's pictures, so wrong `mean` and `std`, or values
    from 0 to 255, show there. None where all is well, or where there is no trained batch norm to tell.
    """
    channels = len(source.mean)
    count = channels * size * (size // 2 + 1)
    phases = torch.stack([torch.from_numpy(uniforms(f"preprocessing/{k}", count)).float() for k in range(4)])
    phases = (2 * math.pi * phases).view(4, channels, size, size // 2 + 1)
    pictures = natural_pictures(literature(channels), size, phases)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (source.mean, source.std))

    def stop(norm: nn.Module, inputs: Any) -> None:
        raise _FirstNorm(norm, inputs[0])

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    parameter = next(model.parameters(), torch.zeros(()))
    x = ((pictures - mean) / std).to(parameter.device, parameter.dtype)
    handles = [norm.register_forward_pre_hook(stop) for norm in norms]
    try:
        with evaluating(model):
            model(x)
        return None
    except _FirstNorm as found:
        return _mismatch(found.norm, found.x.float())
    except Exception:  # any exception: what does not run is told where the network is cut
        return None
    finally:
        for handle in handles:
            handle.remove()


def _mismatch(norm: Any, x: Tensor) -> str | None:
    if norm.running_mean is None or bool((norm.running_mean == 0).all() & (norm.running_var == 1).all()):
        return None  # never trained
    found_mean, found = x.mean((0, 2, 3)), x.var((0, 2, 3))
    spread = (norm.running_var + norm.eps).sqrt()
    away = float(((found_mean - norm.running_mean).abs() / spread).median())
    factor = float(((found + norm.eps) / spread.square()).log().median().exp())
    if away <= _FAR and 1 / _FACTOR <= factor <= _FACTOR:
        return None
    return (
        "the preprocessing looks wrong: natural pictures reach the first batch norm with "
        f"{factor:.2g} times the variance that it was trained on, {away:.2g} spreads away; pass the mean= "
        "and std= of the training, for pictures in [0, 1]"
    )
