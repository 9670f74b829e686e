"""Reads single channels, and linear sums of channels, from a trunk's output.

A readout offers `select`, which turns what is asked for into one tensor row per picture; `scores`, which
takes the trunk's output and those tensors; `ascended`, which the loop follows, and its `gradient`. An
objective that is linear in the output of a linear target is folded over the target, which then never runs
(docs/folded-objective.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from ..errors import InputError
from ..networks.channels import channel_axis, channels_second
from ..networks.trunk import Trunk
from ..program import Program
from .readout import Asked, Readout, averaging, neuron_position, place_in
from .vocabulary import Position


class Folded(Readout):
    """A linear function of a layer's output, as a dot product with the trunk's output.

    f(h) = <G, h> + b. With a tail, h is its input: for one channel of a convolution, G is the transposed
    convolution of the averaging map with its filter; for a linear layer, G is its row of the weights; a sum
    of channels has the sum of their maps. Without a tail, h is the target's output.

    Args:
        tail: the target, if it is linear; None where the trunk yields its output.
        shape: shape of the trunk's output, without the batch.
        position: position of a channel that is asked for as a number; None averages over all positions.
        output: shape of the target's output, without the batch; needed for all but convolutions and vectors.
        axis: axis of the channels in that output, counting the batch.
        layer: name of the target; only an objective's terms on it count.
    """

    def __init__(
        self,
        tail: nn.Conv2d | nn.Linear | None,
        shape: Sequence[int],
        position: Position | None,
        output: Sequence[int] | None = None,
        axis: int = 1,
        layer: str = "",
    ) -> None:
        self.tail, self.shape, self.position, self.layer = tail, tuple(shape), position, layer
        if output is None:
            output = _output_shape(tail, self.shape)
        self.output, self.axis = tuple(output), axis
        self.channels = self.output[axis - 1]

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """Returns G [B, ...], shaped like the trunk's output, and b [B], float32, for every picture."""
        rows = [self.row(one) for one in asked]
        maps = torch.stack([row for row, _ in rows]).float()
        offset = torch.stack([value for _, value in rows]).float()
        if maps.ndim == 4:
            maps = maps.contiguous(memory_format=torch.channels_last)
        return maps.to(device), offset.to(device)

    def scores(self, h: Tensor, maps: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """Computes the scores F [B], float32."""
        total = h.float() * maps
        if total.ndim == 4:  # in the order of memory: a sum along columns first takes ten times as long
            total = total.movedim(1, -1)
        while total.ndim > 1:  # one axis at a time: one long sum would be split among threads
            total = total.sum(-1)
        return total + offset

    def in_dtype(self, dtype: torch.dtype, *selection: Tensor) -> tuple[Tensor, ...]:
        """Returns the selection with G rounded: G is the gradient, which the network takes in its dtype."""
        maps, offset = selection
        return maps.to(dtype), offset

    def gradient(self, program: Program, x: Tensor, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the gradient of <G, h> with respect to the input x, and F [B]; dh is G itself."""
        maps, offset = selection
        gradient, sums = program.linear(x, maps)
        return gradient, sums.float() + offset

    def row(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Returns G and b of one picture in float64, made alone: its bits do not depend on other pictures."""
        if isinstance(asked, int):
            return self._channel(asked, self.position), self._bias(asked)
        total = torch.zeros(self.shape, dtype=torch.float64)
        offset = torch.zeros((), dtype=torch.float64)
        for weight, term in asked.terms:
            for unit, share in (term.shares() or ()) if term.layer == self.layer else ():
                total += weight * share * self._channel(unit, term.position)
                offset += weight * share * self._bias(unit)
        return total, offset

    def _bias(self, channel: int) -> Tensor:
        bias = None if self.tail is None else self.tail.bias
        return torch.zeros((), dtype=torch.float64) if bias is None else bias.detach()[channel].double().cpu()

    def _channel(self, channel: int, position: Position | None) -> Tensor:
        if isinstance(self.tail, nn.Conv2d):
            place = place_in(self.output[1:], position, self.layer)
            return convolution_map(
                self.tail, channel, self.shape, None if place is None else (place[0], place[1])
            )
        weights = averaging(self._places(), position, self.layer)
        if isinstance(self.tail, nn.Linear):
            return weights[..., None] * self.tail.weight[channel].detach().double()
        total = torch.zeros(self.output, dtype=torch.float64)
        total.select(self.axis - 1, channel).copy_(weights)
        return total

    def _places(self) -> tuple[int, ...]:
        """Returns the sizes of the output's positions; () for a vector."""
        return tuple(n for place, n in enumerate(self.output, 1) if place != self.axis)


def _output_shape(tail: nn.Module | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(tail, nn.Conv2d):
        return tail.out_channels, *_convolved(tail, shape[1:])
    return (*shape[:-1], tail.out_features) if isinstance(tail, nn.Linear) else shape


def _convolved(convolution: nn.Conv2d, size: Sequence[int]) -> tuple[int, int]:
    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    rows, columns = (
        (n + sum(pad) - span) // s + 1
        for n, pad, span, s in zip(size, _padding(convolution), spans, stride, strict=True)
    )
    return rows, columns


def convolution_map(
    convolution: nn.Conv2d, channel: int, shape: Sequence[int], position: tuple[int, int] | None = None
) -> Tensor:
    """Computes G_c of a zero-padded convolution, float64 in the given input shape [C, H, W].

    Args:
        convolution: convolution with any stride, padding, dilation and groups.
        channel: the output channel c.
        shape: shape [C, H, W] of its input.
        position: (row, column) in its output; None averages over all positions.
    """
    height, width = shape[1:]
    stride, dilation = convolution.stride, convolution.dilation
    padding = _padding(convolution)
    out = _convolved(convolution, (height, width))
    weights = torch.zeros(1, 1, *out, dtype=torch.float64)
    if position is None:
        weights += 1 / (out[0] * out[1])
    else:
        weights[0, 0, position[0], position[1]] = 1
    weight = convolution.weight[channel].detach().double().flatten(1)
    # What each place of the filter reads is the same for all channels. Without padding and then cut to the
    # input, it is right for uneven padding and for inputs that the stride does not reach.
    places = torch.eye(weight.shape[1], dtype=torch.float64).view(1, -1, *convolution.kernel_size)
    read = conv_transpose2d(weights, places, stride=stride, dilation=dilation)[0]
    full = torch.einsum("kp,phw->khw", weight, read)
    canvas = torch.zeros(len(weight), height + sum(padding[0]), width + sum(padding[1]), dtype=torch.float64)
    canvas[:, : full.shape[1], : full.shape[2]] = full
    top, left = padding[0][0], padding[1][0]
    inputs = convolution.in_channels // convolution.groups
    first = channel // (convolution.out_channels // convolution.groups) * inputs
    result = torch.zeros(tuple(shape), dtype=torch.float64)
    result[first : first + inputs] = canvas[:, top : top + height, left : left + width]
    return result


def _padding(convolution: nn.Conv2d) -> list[tuple[int, int]]:
    """Returns the numbers of zeros before and after, for rows and for columns."""
    if convolution.padding == "valid":
        return [(0, 0), (0, 0)]
    if convolution.padding == "same":
        pairs = zip(convolution.dilation, convolution.kernel_size, strict=True)
        totals = [d * (k - 1) for d, k in pairs]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(pad), int(pad)) for pad in convolution.padding]


class Selected(Readout):
    """One channel of any target's output: its mean over all positions, or its value at one."""

    def __init__(self, shape: Sequence[int], position: Position | None, axis: int = 1) -> None:
        self.channels, self.position, self.axis = shape[axis - 1], position, axis

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """Returns the channel's index for every picture, int64 [B]."""
        return (torch.tensor(list(asked), device=device),)

    def scores(self, h: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        """Computes the scores F [B], float32."""
        h = channels_second(h, self.axis)
        chosen = h.take_along_dim(index.view(-1, *[1] * (h.ndim - 1)), 1)[:, 0].float()
        if self.position is not None and chosen.ndim > 1:
            for place in self.position:
                chosen = chosen[:, place]
        while chosen.ndim > 1:
            chosen = chosen.mean(-1)
        return chosen


def make_readout(
    kind: str,
    trunk: Trunk,
    position: Position | None,
    example: Tensor,
    layer: str,
    target: nn.Module | None = None,
) -> Folded | Selected:
    """Makes the readout of single channels of one target.

    Args:
        kind: "channel", "neuron" or "logit".
        trunk: trunk cut at the target.
        position: position of the neuron; None is the center of the target's output.
        example: a batch of one picture as the network reads it; it determines the shapes.
        layer: name of the target, for messages.
        target: module of the target, which determines the channel axis; None infers it from the shape.

    Raises:
        InputError: the kind does not fit the target, or the position lies outside of its output.
    """
    with torch.no_grad():
        h = trunk.module(example.clone())
        output = h if trunk.tail is None else trunk.tail(h)
    axis = channel_axis(output.shape, trunk.tail or target)
    if axis is None:
        raise InputError(
            f"{layer} yields a tensor of shape {list(output.shape)}: expected maps, tokens or vectors"
        )
    places = [n for at, n in enumerate(output.shape) if at not in (0, axis)]
    place = neuron_position(kind, position, places, layer)
    if trunk.tail is not None:
        return Folded(trunk.tail, h.shape[1:], place, output.shape[1:], axis, layer)
    return Selected(output.shape[1:], place, axis)
