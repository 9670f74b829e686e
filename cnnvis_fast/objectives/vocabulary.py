"""What a picture can be made for: a small vocabulary of terms that add up.

    channel("conv5", 3)                     a filter: the mean of its output over all positions
    neuron("conv5", 3)                      the same at one position, by default the centre
    logit(207)                              a class, before the softmax
    direction("conv5", vector)              a direction in the space of a layer's channels
    deepdream("conv4")                      whatever a layer already answers, more of it
    caricature("dog.jpg", "conv4")          what a layer sees in a photo, exaggerated
    inversion("dog.jpg", "conv4")           a picture that a layer cannot tell from a photo
    accentuation("dog.jpg", logit(207))     a photo changed until a unit fires more
    0.5 * channel("conv5", 3) - channel("conv4", 1)
    interpolate(channel("conv5", 3), channel("conv5", 4), 5)     five objectives between two
    diverse(channel("conv5", 3), 4)                              four pictures that differ

These are descriptions; `maximize` binds them to a network (see `readouts`). Sources: Erhan et al. 2009
(channel, neuron), Simonyan et al. 2014 (logit), Mordvintsev et al. 2015 (DeepDream), Mahendran and Vedaldi
2015 (inversion), Olah et al. 2017 and 2018 (direction, interpolation, diversity, caricature with the cosine
similarity of Carter et al. 2019), Hamblin et al. 2024 (accentuation).
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
CENTRE: Position = ()
"""The position in the middle of whatever a layer yields."""


@dataclass(frozen=True)
class Unit:
    """One channel of a layer: its mean over all positions, or its value at one."""

    layer: str
    unit: int
    position: Position | None = None

    def __str__(self) -> str:
        return f"{self.layer}:{self.unit}{_at(self.position)}"


@dataclass(frozen=True)
class Direction:
    """Dot product of a layer's channels with a vector, times their cosine to a power."""

    layer: str
    vector: tuple[float, ...]
    cosine_power: float = 0.0
    position: Position | None = None

    def __str__(self) -> str:
        digest = hashlib.sha256(np.array(self.vector, dtype="<f8").tobytes()).hexdigest()[:12]
        power = f", cosine^{self.cosine_power:g}" if self.cosine_power else ""
        return f"direction({self.layer}{_at(self.position)}, {digest}{power})"


@dataclass(frozen=True)
class Dream:
    """Mean square of all that a layer yields."""

    layer: str

    def __str__(self) -> str:
        return f"deepdream({self.layer})"


@dataclass(frozen=True)
class Caricature:
    """Dot product of what a layer yields for picture and photo, times their cosine to a power."""

    layer: str
    photo: Photograph
    cosine_power: float = 1.0

    def __str__(self) -> str:
        return f"caricature({self.layer}, {self.photo.digest}, cosine^{self.cosine_power:g})"


@dataclass(frozen=True)
class Likeness:
    """Minus the squared distance between what a layer yields for picture and photo.

    `relative` counts it in units of the other terms' sum, as it is at the step.
    """

    layer: str
    photo: Photograph
    relative: bool = False

    def __str__(self) -> str:
        return f"{'likeness' if self.relative else 'inversion'}({self.layer}, {self.photo.digest})"


@dataclass(frozen=True)
class Variety:
    """Minus the mean similarity to the other pictures of the group, in units of the other terms' sum."""

    layer: str

    def __str__(self) -> str:
        return f"variety({self.layer})"


Term = Unit | Direction | Dream | Caricature | Likeness | Variety


def _relative(term: Term) -> bool:
    """Whether a term is counted in units of the others, and so grows with them by itself."""
    return isinstance(term, Variety) or (isinstance(term, Likeness) and term.relative)


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms.

    Attributes:
        terms: (weight, term) pairs.
        start: photo that the picture starts from; None for noise.
        key: names the random numbers of its picture; "" for the terms as text. Objectives that share it
            start alike and are transformed alike.
        group: (own number, count) among pictures that are kept different; (0, 1) for a picture of its own.
    """

    terms: tuple[tuple[float, Term], ...]
    start: Photograph | None = None
    key: str = ""
    group: tuple[int, int] = (0, 1)

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        if self.group != (0, 1) or other.group != (0, 1):
            raise InputError(
                "pictures that differ cannot be added to: add first, then pass the sum to `diverse`"
            )
        if self.start and other.start and self.start != other.start:
            raise InputError("two objectives that start from different photos cannot be added")
        return Objective(self.terms + other.terms, self.start or other.start)

    def __mul__(self, weight: float) -> Objective:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InputError(f"an objective is multiplied by a finite number, got {weight!r}")
        terms = tuple((old if _relative(term) else weight * old, term) for old, term in self.terms)
        return dataclasses.replace(self, terms=terms)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __str__(self) -> str:
        text = ""
        for weight, term in self.terms:
            sign = (" - " if text else "-") if weight < 0 else (" + " if text else "")
            text += f"{sign}{'' if abs(weight) == 1 else f'{abs(weight):g}*'}{term}"
        return text + (f" #{self.group[0]}" if self.group != (0, 1) else "")

    @property
    def layers(self) -> list[str]:
        """Names of the layers that it reads, each once."""
        return list(dict.fromkeys(term.layer for _, term in self.terms))

    def renamed(self, names: Callable[[str], str]) -> Objective:
        """With other names for its layers."""
        terms = tuple((w, dataclasses.replace(term, layer=names(term.layer))) for w, term in self.terms)
        return dataclasses.replace(self, terms=terms)


def channel(layer: str, unit: int) -> Objective:
    """The mean of a channel's output over all positions; of a vector, that number itself."""
    return _one(Unit(layer, _whole("unit", unit)))


def neuron(layer: str, unit: int, position: Sequence[int] | int = CENTRE) -> Objective:
    """A channel at one position: (row, column) of maps, the number of a token; by default the centre."""
    place = (position,) if isinstance(position, int) else tuple(position)
    return _one(Unit(layer, _whole("unit", unit), tuple(_whole("position", n) for n in place)))


def logit(unit: int) -> Objective:
    """A class of the network's output, before the softmax."""
    return channel(LOGITS, unit)


def direction(
    layer: str,
    vector: Iterable[float],
    cosine_power: float = 0.0,
    position: Sequence[int] | int | None = None,
) -> Objective:
    """A direction in the space of a layer's channels.

    At every position, or the one given: <h, v> max(0.1, cos(h, v))^cosine_power, then the mean.

    Args:
        layer: its name.
        vector: one number a channel.
        cosine_power: 0 for the plain dot product, which is linear; above 0 it counts that h points along v.
        position: of one neuron, as for `neuron`; None for all positions.
    """
    if isinstance(vector, Tensor):
        vector = vector.detach().cpu().double().flatten().tolist()
    try:
        numbers = tuple(float(number) for number in vector)
    except (TypeError, ValueError) as error:
        raise InputError("`vector` must be one number a channel") from error
    if not numbers or not all(map(math.isfinite, numbers)) or not any(numbers):
        raise InputError("`vector` must hold finite numbers, not all of them 0")
    place = (position,) if isinstance(position, int) else position
    place = None if place is None else tuple(_whole("position", n) for n in place)
    return _one(Direction(layer, numbers, _power(cosine_power), place))


def deepdream(layer: str) -> Objective:
    """The mean square of all that a layer yields: more of whatever it sees."""
    return _one(Dream(layer))


def caricature(photo: Photo | Photograph, layer: str, cosine_power: float = 1.0) -> Objective:
    """What a layer sees in a photo, exaggerated: <h, h0> / <h0, h0> max(0.1, cos(h, h0))^cosine_power."""
    return _one(Caricature(layer, Photograph.of(photo), _power(cosine_power)))


def inversion(photo: Photo | Photograph, layer: str) -> Objective:
    """A picture that a layer cannot tell from a photo: -|h - h0|^2 / |h0|^2."""
    return _one(Likeness(layer, Photograph.of(photo)))


def accentuation(
    photo: Photo | Photograph, objective: Objective, layer: str | None = None, strength: float = 1.0
) -> Objective:
    """A photo, changed until an objective rises, while a layer still sees the photo in it.

    Args:
        photo: what the picture starts from.
        objective: what is to rise.
        layer: whose view of the photo is kept; None lets the picture go wherever it goes.
        strength: of keeping it: |h - h0|^2 / |h0|^2 counts as so many times the objective itself.
    """
    picture = Photograph.of(photo)
    terms = objective.terms
    if layer is not None:
        terms += ((_positive("strength", strength), Likeness(layer, picture, relative=True)),)
    return dataclasses.replace(objective, terms=terms, start=picture)


def interpolate(first: Objective, second: Objective, count: int = 5) -> list[Objective]:
    """Objectives from one to another in even steps; all start and are transformed alike."""
    if _whole("count", count) < 2:
        raise InputError(f"`count` must be 2 or more, got {count}")
    key = f"{first} to {second}"
    shares = [step / (count - 1) for step in range(count)]
    # All have all terms, so that they run together.
    return [dataclasses.replace((1 - share) * first + share * second, key=key) for share in shares]


def diverse(
    objective: Objective, count: int, strength: float = 1.0, layer: str | None = None
) -> list[Objective]:
    """Several pictures for one objective, kept different from each other.

    The penalty of a picture is the mean, over the others, of the cosine between Gram matrices of a layer's
    channels (Olah et al. 2017), counted as `strength` times the objective itself.

    Args:
        objective: of all of them.
        count: pictures.
        strength: of the penalty.
        layer: whose Gram matrices are compared; default the objective's first.
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
