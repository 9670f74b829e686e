"""Binds sums of terms to a trunk: computes every objective but single channels, for whole batches.

Pictures run together when their objectives have one *form*: the same kinds of terms on the same layers.
Weights, units, vectors and photos may differ from picture to picture. One evaluator computes all linear
terms of a layer; every other term of the vocabulary has its evaluator in `EVALUATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..images.photos import Photograph
from ..networks.channels import channel_axis, channels_second
from .folded import Folded
from .readout import Asked, Readout, averaging
from .vocabulary import Caricature, Direction, Dream, Likeness, Objective, Term, Variety

_LEAST_COSINE = 0.1  # where h points away from v, a power of the cosine would flip the dot product's sign
_TINY = 1e-12

View = Callable[[Photograph, str], Tensor]
"""(photo, layer) to the layer's output for the photo, float32 without the batch."""


@dataclass(frozen=True)
class Kind:
    """What terms must share for one evaluator to compute them for a whole batch.

    Attributes:
        evaluator: class that computes them.
        layer: name of their layer.
        number: their parameter that is the same for the whole batch.
    """

    evaluator: type[_Evaluator]
    layer: str
    number: float


Form = tuple[tuple[Kind, ...], int]
"""Kinds of an objective's terms and the size of its group."""


def form_of(objective: Objective) -> Form:
    """Returns what objectives must have in common to run in one batch."""
    kinds: list[Kind] = []
    for _, term in objective.terms:
        kind = _kind(term)
        # One evaluator sums up all linear terms of a layer; every other term has its own.
        if kind.evaluator is not _Linear or kind not in kinds:
            kinds.append(kind)
    return tuple(kinds), objective.group[1]


def linear(form: Form) -> bool:
    """Returns whether all terms are linear in the output of one layer, so that they fold over it."""
    kinds, _ = form
    return len(kinds) == 1 and kinds[0].evaluator is _Linear


def _kind(term: Term) -> Kind:
    evaluator = _Linear if term.linear else EVALUATORS[type(term)]
    return Kind(evaluator, term.layer, evaluator.number(term))


@dataclass(frozen=True)
class Output:
    """The part of a trunk's output that belongs to one layer; shapes are without the batch.

    Attributes:
        place: place in the tuple that the trunk returns; None where it returns this part alone.
        shape: shape of the part: the layer's output, or its input where there is a tail.
        output: shape of the layer's output.
        axis: axis of the channels in the layer's output, counting the batch.
        tail: the layer itself if the trunk ends before it.
    """

    place: int | None
    shape: tuple[int, ...]
    output: tuple[int, ...]
    axis: int
    tail: nn.Conv2d | nn.Linear | None

    @property
    def places(self) -> tuple[int, ...]:
        """The sizes of its positions."""
        return tuple(n for at, n in enumerate(self.output, 1) if at != self.axis)

    @property
    def channels(self) -> int:
        """The number of its channels."""
        return self.output[self.axis - 1]

    def of(self, h: Any) -> Tensor:
        """Returns this layer's part of the trunk's output."""
        part: Tensor = h if self.place is None else h[self.place]
        return part


def outputs_of(
    layers: Sequence[str], h: Any, tail: nn.Conv2d | nn.Linear | None, modules: Mapping[str, nn.Module | None]
) -> dict[str, Output]:
    """Describes a trunk's output for one picture, layer by layer.

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
        form: form of all objectives that will be asked for.
        outputs: the trunk's output, by layer.
        view: returns a layer's output for a photo, float32 without the batch.
    """

    def __init__(self, form: Form, outputs: Mapping[str, Output], view: View) -> None:
        self._kinds, self.group = form
        self.channels = 0
        self._outputs, self._view = outputs, view
        self._evaluators = [
            kind.evaluator(kind, outputs[kind.layer], view, self.group) for kind in self._kinds
        ]

    @property
    def alone(self) -> Expression:
        """The readout without the terms that compare pictures of a group."""
        kinds = tuple(kind for kind in self._kinds if not kind.evaluator.compares)
        return Expression((kinds, 1), self._outputs, self._view)

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """Returns the tensors of all terms, one after the other."""
        tensors: list[Tensor] = []
        for number, (kind, evaluator) in enumerate(zip(self._kinds, self._evaluators, strict=True)):
            earlier = self._kinds[:number].count(kind)  # the n-th evaluator of a kind computes its n-th term
            rows = [evaluator.row(_terms(one, kind), earlier) for one in asked]
            columns = [torch.stack(column).float() for column in zip(*rows, strict=True)]
            tensors += [_channels_last(column).to(device) for column in columns]
        return tuple(tensors)

    def scores(self, h: Any, *selection: Tensor) -> Tensor:
        """Computes the sum of the terms that are not relative to it, [B] float32."""
        return self.ascended(h, *selection)[1]

    def ascended(self, h: Any, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the sum of all terms, and the scores."""
        left = list(selection)
        total: Tensor | None = None
        relative: Tensor | None = None
        for evaluator in self._evaluators:
            own = [left.pop(0) for _ in range(evaluator.count)]
            value = evaluator.values(h, *own)
            if evaluator.relative:
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


class _Evaluator:
    """Computes one term of the sum for a batch, from tensors that `row` makes for each picture.

    Attributes:
        reads_output: whether it needs the layer's output, so that the trunk must not end before the layer.
        compares: whether it compares the pictures of a group.
        count: number of tensors per picture.
        relative: whether its values count in units of the sum of the other terms.
    """

    reads_output: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    count: ClassVar[int] = 1
    relative: bool = False

    def __init__(self, kind: Kind, output: Output, view: View, group: int) -> None:
        if self.reads_output and output.tail is not None:
            raise ValueError(f"a term needs the output of {kind.layer}, and the trunk ends before it")
        self.layer, self.at = kind.layer, output
        self._number, self._view, self._group = kind.number, view, group

    @classmethod
    def number(cls, term: Any) -> float:
        """Returns the parameter of a term that must be the same for the whole batch."""
        return 0.0

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        """Returns the tensors of one picture, float64, for the n-th of its terms of this kind."""
        return (torch.tensor(terms[number][0], dtype=torch.float64),)

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        """Computes the values of a batch, [B] float32."""
        raise NotImplementedError


class _Linear(_Evaluator):
    """Sums up all linear terms of a layer."""

    reads_output = False
    count = 2

    def __init__(self, kind: Kind, output: Output, view: View, group: int) -> None:
        super().__init__(kind, output, view, group)
        self._folded = Folded(output.tail, output.shape, None, output.output, output.axis, kind.layer)

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        for _, term in terms:
            term.check(self._folded.channels)
        return self._folded.row(Objective(tuple(terms)))

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        return self._folded.scores(self.at.of(h), *tensors)


class _Cosine(_Evaluator):
    count = 3

    @classmethod
    def number(cls, term: Direction) -> float:
        return term.cosine_power

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        weight, term = terms[number]
        assert isinstance(term, Direction)
        term.check(self.at.channels)
        where = averaging(self.at.places, term.position, self.layer).flatten()
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (weight, term.vector))
        return (*numbers, where)

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, vector, where = tensors
        columns = _columns(self.at, h)
        dot = (columns * vector[:, :, None]).sum(1)
        norms = (columns.square().sum(1) + _TINY).sqrt() * (
            vector.square().sum(1, keepdim=True) + _TINY
        ).sqrt()
        aligned = dot * (dot / norms).clamp_min(_LEAST_COSINE).pow(self._number)
        return weight * (aligned * where).sum(1)


class _Dream(_Evaluator):
    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        return tensors[0] * _mean(self.at.of(h).float().square())


class _Photo(_Evaluator):
    """A term that compares with the layer's output for a photo."""

    count = 2

    def row(self, terms: list[tuple[float, Term]], number: int) -> tuple[Tensor, ...]:
        weight, term = terms[number]
        assert isinstance(term, Caricature | Likeness)
        return torch.tensor(weight, dtype=torch.float64), self._view(term.photo, self.layer)


class _Caricature(_Photo):
    @classmethod
    def number(cls, term: Caricature) -> float:
        return term.cosine_power

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, seen = tensors
        found = self.at.of(h).float()
        dot, own, of_photo = _mean(found * seen), _mean(found.square()), _mean(seen.square())
        cosine = dot / ((own + _TINY).sqrt() * (of_photo + _TINY).sqrt())
        return weight * dot / (of_photo + _TINY) * cosine.clamp_min(_LEAST_COSINE).pow(self._number)


class _Likeness(_Photo):
    def __init__(self, kind: Kind, output: Output, view: View, group: int) -> None:
        super().__init__(kind, output, view, group)
        self.relative = bool(kind.number)

    @classmethod
    def number(cls, term: Likeness) -> float:
        return float(term.relative)

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        weight, seen = tensors
        return -weight * _mean((self.at.of(h).float() - seen).square()) / (_mean(seen.square()) + _TINY)


class _Variety(_Evaluator):
    compares = True
    relative = True

    def values(self, h: Any, *tensors: Tensor) -> Tensor:
        columns = _columns(self.at, h)
        gram = torch.bmm(columns, columns.transpose(1, 2)).flatten(1)
        unit = gram / (gram.square().sum(1, keepdim=True) + _TINY).sqrt()
        members = unit.view(-1, self._group, unit.shape[1])
        likeness = (members[:, :, None] * members[:, None]).sum(-1)  # [groups, N, N], 1 on the diagonal
        others = (likeness.sum(-1) - likeness.diagonal(dim1=1, dim2=2)) / (self._group - 1)
        return -tensors[0] * others.flatten()


EVALUATORS: dict[type[Term], type[_Evaluator]] = {
    Direction: _Cosine,
    Dream: _Dream,
    Caricature: _Caricature,
    Likeness: _Likeness,
    Variety: _Variety,
}
"""The evaluator of every term that is not linear; linear terms share one."""


def _columns(output: Output, h: Any) -> Tensor:
    """Returns a layer's output as [B, C, positions], float32."""
    columns = channels_second(output.of(h), output.axis).float()
    return columns.reshape(len(columns), columns.shape[1], -1)


def _mean(x: Tensor) -> Tensor:
    """Averages every picture, [B, ...] to [B]; by axes, because one long sum would be split among threads."""
    while x.ndim > 1:
        x = x.mean(-1)
    return x
