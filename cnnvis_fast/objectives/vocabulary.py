"""Describes objectives: terms that read a layer's output, and weighted sums of them.

A description knows no network; `readout`, `folded` and `terms` compute it. A new objective is one subclass of
`Term` here and one evaluator in the table of `terms`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..images.photos import Photo, Photograph
from ..networks.names import LOGITS

Position = tuple[int, ...]
CENTER: Position = ()
"""The position in the center of a layer's output."""
CENTRE = CENTER  # the British spelling


@dataclass(frozen=True)
class Term:
    """One term of an objective: a function of one layer's output.

    Its text is part of the key of a picture's random numbers, so it must never change.
    """

    layer: str

    @property
    def position(self) -> Position | None:
        """The position that it reads; None for all positions."""
        return None

    @property
    def linear(self) -> bool:
        """Whether it is linear in the layer's output, so that it folds over a linear layer."""
        return self.shares() is not None

    @property
    def relative(self) -> bool:
        """Whether it counts in units of the sum of the other terms, and so scales with them by itself."""
        return False

    def shares(self) -> Iterable[tuple[int, float]] | None:
        """Returns the channels that a linear term reads, each with its weight; None for other terms."""
        return None

    def check(self, channels: int) -> None:
        """Raises an InputError where a layer with so many channels does not have what the term reads."""


@dataclass(frozen=True)
class Unit(Term):
    """One channel of a layer: its mean over all positions, or its value at one."""

    unit: int
    position: Position | None = None

    def shares(self) -> Iterable[tuple[int, float]]:
        """Returns its channel, with weight 1."""
        return ((self.unit, 1.0),)

    def check(self, channels: int) -> None:
        """Raises an InputError where there is no such channel."""
        if self.unit >= channels:
            raise InputError(
                f"no filter {self.unit} in {self.layer}: it has {channels}, numbered 0 to {channels - 1}"
            )

    def __str__(self) -> str:
        return f"{self.layer}:{self.unit}{_at(self.position)}"


@dataclass(frozen=True)
class Direction(Term):
    """Dot product of a layer's channels with a vector, times their cosine to a power."""

    vector: tuple[float, ...]
    cosine_power: float = 0.0
    position: Position | None = None

    def shares(self) -> Iterable[tuple[int, float]] | None:
        """Returns the entries of the vector that are not 0; None with a power of the cosine."""
        return None if self.cosine_power else ((n, share) for n, share in enumerate(self.vector) if share)

    def check(self, channels: int) -> None:
        """Raises an InputError where the vector has another length."""
        if len(self.vector) != channels:
            raise InputError(
                f"`vector` must have a number for each of the {channels} channels, got {len(self.vector)}"
            )

    def __str__(self) -> str:
        digest = hashlib.sha256(np.array(self.vector, dtype="<f8").tobytes()).hexdigest()[:12]
        power = f", cosine^{self.cosine_power:g}" if self.cosine_power else ""
        return f"direction({self.layer}{_at(self.position)}, {digest}{power})"


@dataclass(frozen=True)
class Dream(Term):
    """Mean square of a layer's output."""

    def __str__(self) -> str:
        return f"deepdream({self.layer})"


@dataclass(frozen=True)
class Caricature(Term):
    """Dot product of a layer's outputs for picture and photo, times their cosine to a power."""

    photo: Photograph
    cosine_power: float = 1.0

    def __str__(self) -> str:
        return f"caricature({self.layer}, {self.photo.digest}, cosine^{self.cosine_power:g})"


@dataclass(frozen=True)
class Likeness(Term):
    """Minus the squared distance between a layer's outputs for picture and photo.

    `relative` counts it in units of the sum of the other terms at the current step.
    """

    photo: Photograph
    relative: bool = False

    def __str__(self) -> str:
        return f"{'likeness' if self.relative else 'inversion'}({self.layer}, {self.photo.digest})"


@dataclass(frozen=True)
class Variety(Term):
    """Minus the mean similarity to the other pictures of the group, in units of the other terms' sum."""

    @property
    def relative(self) -> bool:
        """True: it counts in units of the other terms."""
        return True

    def __str__(self) -> str:
        return f"variety({self.layer})"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms.

    Attributes:
        terms: (weight, term) pairs.
        start: photo that the picture starts from; None for noise.
        key: key of the random numbers of its picture; "" for the terms as text. Objectives that share a key
            share their start noise and their transforms.
        group: (own number, count) among pictures that are kept different; (0, 1) for an independent picture.
    """

    terms: tuple[tuple[float, Term], ...]
    start: Photograph | None = None
    key: str = ""
    group: tuple[int, int] = (0, 1)

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        if self.group != (0, 1) or other.group != (0, 1):
            raise InputError("objectives of `diverse` cannot be added: add first, then pass on the sum to it")
        if self.start and other.start and self.start != other.start:
            raise InputError("two objectives that start from different photos cannot be added")
        return Objective(self.terms + other.terms, self.start or other.start)

    def __mul__(self, weight: float) -> Objective:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InputError(f"an objective can be multiplied by a finite number only, got {weight!r}")
        terms = tuple((old if term.relative else weight * old, term) for old, term in self.terms)
        return dataclasses.replace(self, terms=terms)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __str__(self) -> str:
        # This text seeds the random numbers of the picture: other words would make other pictures.
        text = ""
        for weight, term in self.terms:
            sign = (" - " if text else "-") if weight < 0 else (" + " if text else "")
            text += f"{sign}{'' if abs(weight) == 1 else f'{abs(weight):g}*'}{term}"
        return text + (f" #{self.group[0]}" if self.group != (0, 1) else "")

    @property
    def layers(self) -> list[str]:
        """The names of the layers that it reads, each once."""
        return list(dict.fromkeys(term.layer for _, term in self.terms))

    def renamed(self, names: Callable[[str], str]) -> Objective:
        """Returns the objective with other names for its layers."""
        terms = tuple((w, dataclasses.replace(term, layer=names(term.layer))) for w, term in self.terms)
        return dataclasses.replace(self, terms=terms)


def channel(layer: str, unit: int) -> Objective:
    """Returns the mean of a channel's output over all positions; in a vector, the channel's number itself."""
    return _one(Unit(layer, _whole("unit", unit)))


def neuron(layer: str, unit: int, position: Sequence[int] | int = CENTER) -> Objective:
    """Returns a channel at one position, (row, column) in maps or a token's number; by default the center."""
    place = (position,) if isinstance(position, int) else tuple(position)
    return _one(Unit(layer, _whole("unit", unit), tuple(_whole("position", n) for n in place)))


def logit(unit: int) -> Objective:
    """Returns a class of the network's output, before the softmax."""
    return channel(LOGITS, unit)


def direction(
    layer: str,
    vector: Iterable[float],
    cosine_power: float = 0.0,
    position: Sequence[int] | int | None = None,
) -> Objective:
    """Returns a direction in the space of a layer's channels.

    Its value is the mean over all positions, or the value at one, of <h, v> max(0.1, cos(h, v))^cosine_power.

    Args:
        layer: name of the layer.
        vector: one number per channel.
        cosine_power: 0 for the plain dot product, which is linear; above 0, h must also point along v.
        position: (row, column) in maps, or a token's number; None for all positions.
    """
    if isinstance(vector, Tensor):
        vector = vector.detach().cpu().double().flatten().tolist()
    try:
        numbers = tuple(float(number) for number in vector)
    except (TypeError, ValueError) as error:
        raise InputError("`vector` must be one number per channel") from error
    if not numbers or not all(map(math.isfinite, numbers)) or not any(numbers):
        raise InputError("`vector` must hold finite numbers, not all of them 0")
    place = (position,) if isinstance(position, int) else position
    place = None if place is None else tuple(_whole("position", n) for n in place)
    return _one(Direction(layer, numbers, _power(cosine_power), place))


def deepdream(layer: str) -> Objective:
    """Returns the mean square of a layer's output: more of whatever it sees."""
    return _one(Dream(layer))


def caricature(photo: Photo | Photograph, layer: str, cosine_power: float = 1.0) -> Objective:
    """Exaggerates what a layer sees in a photo: <h, h0> / <h0, h0> max(0.1, cos(h, h0))^cosine_power."""
    return _one(Caricature(layer, Photograph.of(photo), _power(cosine_power)))


def inversion(photo: Photo | Photograph, layer: str) -> Objective:
    """Returns the objective of a picture that a layer cannot tell from a photo: -|h - h0|^2 / |h0|^2."""
    return _one(Likeness(layer, Photograph.of(photo)))


def accentuation(
    photo: Photo | Photograph, objective: Objective, layer: str | None = None, strength: float = 1.0
) -> Objective:
    """Returns an objective that changes a photo until another rises, while a layer still sees the photo.

    Args:
        photo: photo that the picture starts from.
        objective: objective that is to rise.
        layer: layer whose view of the photo is kept; None lets the picture change freely.
        strength: weight of that: |h - h0|^2 / |h0|^2 counts as so many times the objective itself.
    """
    picture = Photograph.of(photo)
    terms = objective.terms
    if layer is not None:
        terms += ((_positive("strength", strength), Likeness(layer, picture, relative=True)),)
    return dataclasses.replace(objective, terms=terms, start=picture)


def interpolate(first: Objective, second: Objective, count: int = 5) -> list[Objective]:
    """Returns objectives from one to another in even steps; they share start noise and transforms."""
    if _whole("count", count) < 2:
        raise InputError(f"`count` must be 2 or more, got {count}")
    key = f"{first} to {second}"
    shares = [step / (count - 1) for step in range(count)]
    # Every objective has the terms of both, so that all run together.
    return [dataclasses.replace((1 - share) * first + share * second, key=key) for share in shares]


def diverse(
    objective: Objective, count: int, strength: float = 1.0, layer: str | None = None
) -> list[Objective]:
    """Returns one objective several times, for pictures that are kept different from each other.

    The penalty of a picture is the mean, over the others, of the cosine between Gram matrices of a layer's
    channels (Olah et al. 2017), counted as `strength` times the objective itself.

    Args:
        objective: objective of all pictures.
        count: number of pictures.
        strength: weight of the penalty.
        layer: layer whose Gram matrices are compared; by default the objective's first layer.
    """
    if not 2 <= _whole("count", count) <= 64:
        raise InputError(f"`count` must be from 2 to 64, got {count}")
    term = (_positive("strength", strength), Variety(layer or objective.layers[0]))
    return [
        dataclasses.replace(objective, terms=(*objective.terms, term), group=(number, count))
        for number in range(count)
    ]


def _one(term: Term) -> Objective:
    if not isinstance(term.layer, str) or not term.layer:
        raise InputError(f"`layer` must be a name like features.28, conv10 or logits, got {term.layer!r}")
    return Objective(((1.0, term),))


def _at(position: Position | None) -> str:
    # "centre" stays British: an objective's text seeds its random numbers.
    return "" if position is None else "@" + (",".join(map(str, position)) or "centre")


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InputError(f"`{name}` must be a whole number from 0 on, got {value!r}")
    return int(value)


def _power(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise InputError(f"`cosine_power` must be a number from 0 to 10, got {value!r}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
        raise InputError(f"`{name}` must be a number above 0, got {value!r}")
    return float(value)
