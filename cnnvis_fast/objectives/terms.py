"""Sums of terms bound to a trunk: every objective of `objectives` but single channels, for whole batches.

Pictures run together when their objectives have one *form*: the same kinds of terms on the same layers.
Weights, units, vectors and photos may differ from picture to picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..images.photos import Photograph
from ..networks.channels import channel_axis, channels_second
from .folded import Folded
from .readout import Asked, Readout, averaging
from .vocabulary import Caricature, Direction, Dream, Likeness, Objective, Term, Unit

_LEAST_COSINE = 0.1  # where h points away from v, a power of the cosine would turn the dot product's sign
_TINY = 1e-12

Kind = tuple[str, str, float]
"""Kind of a term, its layer, and the number that is the same for a whole batch."""
Form = tuple[tuple[Kind, ...], int]
"""Kinds of an objective's terms and the size of its group."""


def form_of(objective: Objective) -> Form:
    """What objectives must have in common to run in one batch."""
    kinds: list[Kind] = []
    for _, term in objective.terms:
        kind = _kind(term)
        if kind[0] != "linear" or kind not in kinds:
            kinds.append(kind)
    return tuple(kinds), objective.group[1]


def linear(form: Form) -> bool:
    """Whether all terms are linear in what the one layer yields, so that they fold over it."""
    kinds, _ = form
    return len(kinds) == 1 and kinds[0][0] == "linear"


def _kind(term: Term) -> Kind:
    if isinstance(term, Unit) or (isinstance(term, Direction) and not term.cosine_power):
        return "linear", term.layer, 0.0
    if isinstance(term, Direction):
        return "cosine", term.layer, term.cosine_power
    if isinstance(term, Dream):
        return "dream", term.layer, 0.0
    if isinstance(term, Caricature):
        return "caricature", term.layer, term.cosine_power
    if isinstance(term, Likeness):
        return "likeness", term.layer, float(term.relative)
    return "variety", term.layer, 0.0


@dataclass(frozen=True)
class Output:
    """What the trunk yields for one layer: where, and of which shapes without the batch.

    Attributes:
        place: in the tuple that the trunk returns; None where it returns this alone.
        shape: of what the trunk yields: the layer's output, or its input where there is a tail.
        output: of the layer's output.
        axis: of the channels in the output, batch counted.
        tail: the layer itself if the trunk ends before it.
    """

    place: int | None
    shape: tuple[int, ...]
    output: tuple[int, ...]
    axis: int
    tail: nn.Conv2d | nn.Linear | None

    @property
    def places(self) -> tuple[int, ...]:
        """Sizes of its positions."""
        return tuple(n for at, n in enumerate(self.output, 1) if at != self.axis)

    def of(self, h: Any) -> Tensor:
        """This layer's part of what the trunk returned."""
        part: Tensor = h if self.place is None else h[self.place]
        return part


def outputs_of(
    layers: Sequence[str], h: Any, tail: nn.Conv2d | nn.Linear | None, modules: Mapping[str, nn.Module | None]
) -> dict[str, Output]:
    """Describes what a trunk returned for one picture, layer by layer.

    Raises:
        InputError: a layer yields neither maps, tokens nor vectors.
    """
    found = {}
    for place, layer in enumerate(layers):
        part: Tensor = h if len(layers) == 1 else h[place]
        output = part if tail is None else tail(part)
        axis = channel_axis(output.shape, modules.get(layer))
        if axis is None:
            raise InputError(
                f"{layer} yields a tensor of shape {list(output.shape)}: expected maps, tokens or vectors"
            )
        where = None if len(layers) == 1 else place
        found[layer] = Output(where, tuple(part.shape[1:]), tuple(output.shape[1:]), axis, tail)
    return found


class Expression(Readout):
    """Objectives of one form.

    Args:
        form: of all objectives that will be asked for.
        outputs: of the trunk, by layer.
        view: what a layer yields for a photo, float32 without the batch.
    """

    def __init__(
        self, form: Form, outputs: Mapping[str, Output], view: Callable[[Photograph, str], Tensor]
    ) -> None:
        self._kinds, self.group = form
        self.channels = 0
        self._outputs, self._view = outputs, view
        self._parts = [_part(kind, outputs[kind[1]], view, self.group) for kind in self._kinds]

    @property
    def alone(self) -> Expression:
        """The same without what compares pictures of a group."""
        kinds = tuple(kind for kind in self._kinds if kind[0] != "variety")
        return Expression((kinds, 1), self._outputs, self._view)

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """The tensors of all terms, one after the other."""
        tensors: list[Tensor] = []
        for number, (kind, part) in enumerate(zip(self._kinds, self._parts, strict=True)):
            earlier = self._kinds[:number].count(kind)  # the n-th term of a kind is the n-th part's
            rows = [part.row(_terms(one, kind), earlier) for one in asked]
            columns = [torch.stack(column).float() for column in zip(*rows, strict=True)]
            tensors += [_channels_last(column).to(device) for column in columns]
        return tuple(tensors)

    def scores(self, h: Any, *selection: Tensor) -> Tensor:
        """The sum of the terms that do not depend on it, [B] float32."""
        return self.ascended(h, *selection)[1]

    def ascended(self, h: Any, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """The whole sum, and the scores."""
        left = list(selection)
        total: Tensor | None = None
        relative: Tensor | None = None
        for part in self._parts:
            mine = [left.pop(0) for _ in range(part.count)]
            value = part.values(h, *mine)
            if part.relative:
                relative = value if relative is None else relative + value
            else:
                total = value if total is None else total + value
        assert total is not None
        return (total if relative is None else total + total.abs().detach() * relative), total


def _terms(asked: Asked, kind: Kind) -> list[tuple[float, Term]]:
    assert isinstance(asked, Objective)
    return [(weight, term) for weight, term in asked.terms if _kind(term) == kind]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class _Part:
    """One term of the sum: `count` tensors per picture, made by `row`, read by `values`."""

    relative = False
    count = 1

    def __init__(self, output: Output, layer: str) -> None:
        self.at, self.layer = output, layer

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        """The tensors of one picture, float64: of all terms of the kind, or of the one with a number."""
        return (torch.tensor(terms[number][0], dtype=torch.float64),)

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        """[B], float32."""
        raise NotImplementedError


class _Linear(_Part):
    count = 2

    def __init__(self, output: Output, layer: str) -> None:
        super().__init__(output, layer)
        self._folded = Folded(output.tail, output.shape, None, output.output, output.axis, layer)

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        for _, term in terms:
            known = self._folded.channels
            given = len(term.vector) if isinstance(term, Direction) else 0
            if isinstance(term, Unit) and term.unit >= known:
                raise InputError(
                    f"no filter {term.unit} in {self.layer}: it has {known}, numbered 0 to {known - 1}"
                )
            if isinstance(term, Direction) and given != known:
                raise InputError(f"`vector` must have a number for each of the {known} channels, got {given}")
        return self._folded.row(Objective(tuple(terms)))

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        return self._folded.scores(self.at.of(h), *tensors)


class _Cosine(_Part):
    count = 3

    def __init__(self, output: Output, layer: str, power: float) -> None:
        super().__init__(output, layer)
        self._power = power

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        weight, term = terms[number]
        assert isinstance(term, Direction)
        channels = self.at.output[self.at.axis - 1]
        if len(term.vector) != channels:
            raise InputError(
                f"`vector` must have a number for each of the {channels} channels, got {len(term.vector)}"
            )
        where = averaging(self.at.places, term.position, self.layer).flatten()
        return (
            torch.tensor(weight, dtype=torch.float64),
            torch.tensor(term.vector, dtype=torch.float64),
            where,
        )

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, vector, where = tensors
        columns = channels_second(self.at.of(h), self.at.axis).float()
        columns = columns.reshape(len(columns), columns.shape[1], -1)
        dot = (columns * vector[:, :, None]).sum(1)
        norms = (columns.square().sum(1) + _TINY).sqrt() * (
            vector.square().sum(1, keepdim=True) + _TINY
        ).sqrt()
        aligned = dot * (dot / norms).clamp_min(_LEAST_COSINE).pow(self._power)
        return weight * (aligned * where).sum(1)


class _Dream(_Part):
    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        return tensors[0] * _mean(self.at.of(h).float().square())


class _Photo(_Part):
    """A term that compares with what the layer yields for a photo."""

    count = 2

    def __init__(self, output: Output, layer: str, view: Callable[[Photograph, str], Tensor]) -> None:
        super().__init__(output, layer)
        self._view = view

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        weight, term = terms[number]
        assert isinstance(term, Caricature | Likeness)
        return torch.tensor(weight, dtype=torch.float64), self._view(term.photo, self.layer)


class _Caricature(_Photo):
    def __init__(
        self, output: Output, layer: str, view: Callable[[Photograph, str], Tensor], power: float
    ) -> None:
        super().__init__(output, layer, view)
        self._power = power

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, seen = tensors
        found = self.at.of(h).float()
        dot, own, of_photo = _mean(found * seen), _mean(found.square()), _mean(seen.square())
        cosine = dot / ((own + _TINY).sqrt() * (of_photo + _TINY).sqrt())
        return weight * dot / (of_photo + _TINY) * cosine.clamp_min(_LEAST_COSINE).pow(self._power)


class _Likeness(_Photo):
    def __init__(
        self, output: Output, layer: str, view: Callable[[Photograph, str], Tensor], relative: bool
    ) -> None:
        super().__init__(output, layer, view)
        self.relative = relative

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, seen = tensors
        return -weight * _mean((self.at.of(h).float() - seen).square()) / (_mean(seen.square()) + _TINY)


class _Variety(_Part):
    relative = True

    def __init__(self, output: Output, layer: str, group: int) -> None:
        super().__init__(output, layer)
        self._group = group

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        columns = channels_second(self.at.of(h), self.at.axis).float()
        columns = columns.reshape(len(columns), columns.shape[1], -1)
        gram = torch.bmm(columns, columns.transpose(1, 2)).flatten(1)
        unit = gram / (gram.square().sum(1, keepdim=True) + _TINY).sqrt()
        members = unit.view(-1, self._group, unit.shape[1])
        likeness = (members[:, :, None] * members[:, None]).sum(-1)  # [groups, N, N], 1 on the diagonal
        others = (likeness.sum(-1) - likeness.diagonal(dim1=1, dim2=2)) / (self._group - 1)
        return -tensors[0] * others.flatten()


def _mean(x: Tensor) -> Tensor:
    """Mean of every picture, [B, ...] to [B]; by axes, as one long sum would be split among threads."""
    while x.ndim > 1:
        x = x.mean(-1)
    return x


def _part(kind: Kind, output: Output, view: Callable[[Photograph, str], Tensor], group: int) -> _Part:
    name, layer, number = kind
    if name == "linear":
        return _Linear(output, layer)
    if output.tail is not None:
        raise ValueError(f"{name} needs what {layer} yields, and the trunk ends before it")
    if name == "cosine":
        return _Cosine(output, layer, number)
    if name == "dream":
        return _Dream(output, layer)
    if name == "caricature":
        return _Caricature(output, layer, view, number)
    if name == "likeness":
        return _Likeness(output, layer, view, bool(number))
    return _Variety(output, layer, group)
