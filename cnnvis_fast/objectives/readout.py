"""Defines what all readouts share: one number per picture from the trunk's output, and neuron positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..program import Program
from .vocabulary import Objective, Position

Asked = int | Objective
"""A channel of the readout's layer, or an objective whose terms on that layer count."""


class Readout:
    """An objective bound to a trunk: one number per picture of a batch, from the trunk's output.

    By default the loop follows the score itself.

    Attributes:
        channels: number of channels of the target; 0 for sums of terms.
    """

    channels: int

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """Returns the tensors that `scores` takes, first axis = pictures."""
        raise NotImplementedError

    def scores(self, h: Tensor, *selection: Tensor) -> Tensor:
        """Computes the scores F [B], float32."""
        raise NotImplementedError

    def ascended(self, h: Tensor, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Computes what the loop follows, [B], and the scores [B]."""
        scores = self.scores(h, *selection)
        return scores, scores

    def in_dtype(self, dtype: torch.dtype, *selection: Tensor) -> tuple[Tensor, ...]:
        """Returns the selection for a loop whose network runs in a dtype."""
        return selection

    def gradient(self, program: Program, x: Tensor, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the gradient of what the loop follows with respect to the input x, and the scores [B]."""

        def followed(h: Any) -> tuple[Tensor, Tensor]:
            ascended, scores = self.ascended(h, *selection)
            return ascended.sum(), scores

        h, backward = program(x)
        dh, scores = torch.func.grad(followed, has_aux=True)(h)
        return backward(dh), scores

    @property
    def alone(self) -> Readout:
        """The readout for a picture that is scored by itself."""
        return self


def place_in(places: Sequence[int], position: Position | None, layer: str) -> Position | None:
    """Makes a position explicit: None stays None, the center becomes numbers.

    Args:
        places: sizes of the output's positions: (height, width), (tokens,) or () for vectors.
        position: position asked for.
        layer: name of the target, for messages.

    Raises:
        InputError: the position lies outside of the output.
    """
    if position is None:
        return None
    if position and not places:
        raise InputError(f"`position` is for maps, and {layer} yields vectors: leave it out")
    place = position or tuple(n // 2 for n in places)
    if len(place) != len(places) or not all(0 <= at < n for at, n in zip(place, places, strict=True)):
        size = " x ".join(map(str, places))
        raise InputError(f"`position` must lie in the {size} output of {layer}, got {place}")
    return place


def averaging(places: Sequence[int], position: Position | None, layer: str) -> Tensor:
    """Returns the weights of all positions, float64: the same for each, or 1 at one of them."""
    place = place_in(places, position, layer)
    weights = torch.zeros(tuple(places), dtype=torch.float64)
    if place is None:
        weights += 1 / weights.numel()
    else:
        weights[place] = 1
    return weights


def neuron_position(kind: str, position: Position | None, size: Sequence[int], layer: str) -> Position | None:
    """Returns the position that an objective of a kind reads; None for all positions.

    Args:
        kind: "channel", "neuron" or "logit".
        position: position asked for; None is the center.
        size: (height, width) of the target's output, (tokens,), or () for vectors.
        layer: name of the target, for messages.

    Raises:
        InputError: the kind does not fit the target, or the position lies outside of its output.
    """
    if kind == "logit" and len(size):
        raise InputError(f"the objective logit needs a layer of vectors, and {layer} yields maps: use logits")
    if position is not None and not len(size):
        raise InputError(f"`position` is for maps, and {layer} yields vectors: leave it out")
    if kind != "neuron" or not len(size):
        return None
    return place_in(size, position or (), layer)
