"""Objectives bound to a trunk: one number per picture of a batch, out of what the trunk yields.

A readout offers `select`, which turns what is asked for into one tensor row per picture; `scores`, which
takes the trunk's output and those tensors; `ascended`, which the loop follows, and its `gradient`. What is
linear in the output of a linear target is folded over it and never runs the target itself, see
docs/folded-objective.md.
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
from .vocabulary import Direction, Position, Unit


class Folded(Readout):
    """A linear function of a layer's output as a dot product with what the trunk yields.

    f(h) = <G, h> + b. With a tail, h is its input: for one channel of a convolution G is the transposed
    convolution of the averaging map with its filter, for a linear layer its row of the weights; a sum of
    channels has the sum of their maps. Without a tail, h is the output itself.

    Args:
        tail: the target, if it is linear; None where the trunk yields its output.
        shape: of what the trunk yields, without the batch.
        position: of a channel asked for as a number; None averages over all positions.
        output: shape of the target's output, without the batch; needed for all but convolutions and vectors.
        axis: of the channels in that output, batch counted.
        layer: the target's name, of which an objective's terms count.
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
        """G [B, ...] like the trunk's output and b [B], float32, for one objective per picture."""
        rows = [self.row(one) for one in asked]
        maps = torch.stack([row for row, _ in rows]).float()
        offset = torch.stack([value for _, value in rows]).float()
        if maps.ndim == 4:
            maps = maps.contiguous(memory_format=torch.channels_last)
        return maps.to(device), offset.to(device)

    def scores(self, h: Tensor, maps: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """F [B], float32."""
        total = h.float() * maps
        if total.ndim == 4:  # as they lie in memory: a sum along columns first takes ten times as long
            total = total.movedim(1, -1)
        while total.ndim > 1:  # one axis at a time: one long sum would be split among threads
            total = total.sum(-1)
        return total + offset

    def in_dtype(self, dtype: torch.dtype, *selection: Tensor) -> tuple[Tensor, ...]:
        """G rounded: a linear function's gradient is G, and the network takes it in its own dtype."""
        maps, offset = selection
        return maps.to(dtype), offset

    def gradient(self, program: Program, x: Tensor, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """That of <G, h>, whose gradient with respect to h is G, and F."""
        maps, offset = selection
        gradient, sums = program.linear(x, maps)
        return gradient, sums.float() + offset

    def row(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """G and b of one picture in float64, made alone so that its bits do not depend on the others."""
        if isinstance(asked, int):
            return self._channel(asked, self.position), self._bias(asked)
        total = torch.zeros(self.shape, dtype=torch.float64)
        offset = torch.zeros((), dtype=torch.float64)
        for weight, term in asked.terms:
            if term.layer != self.layer:
                continue
            if isinstance(term, Unit):
                total += weight * self._channel(term.unit, term.position)
                offset += weight * self._bias(term.unit)
            elif isinstance(term, Direction) and not term.cosine_power:
                for unit, share in enumerate(term.vector):
                    if share:
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
        """Sizes of the output's positions; () of a vector."""
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
    """G_c of a zero-padded convolution, float64 of the given input shape [C, H, W].

    Args:
        convolution: any stride, padding, dilation and groups.
        channel: c, the output channel.
        shape: [C, H, W] of its input.
        position: (row, column) in its output; None averages over all of them.
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
    # What each place of the filter reads is the same for all channels. Unpadded, then cut to the input: this
    # handles uneven padding and inputs that the stride does not reach.
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
    """Zeros before and after, for rows and for columns."""
    if convolution.padding == "valid":
        return [(0, 0), (0, 0)]
    if convolution.padding == "same":
        pairs = zip(convolution.dilation, convolution.kernel_size, strict=True)
        totals = [d * (k - 1) for d, k in pairs]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(pad), int(pad)) for pad in convolution.padding]


class Selected(Readout):
    """Mean over positions (or one) of one channel of any target's output: reads that channel alone."""

    def __init__(self, shape: Sequence[int], position: Position | None, axis: int = 1) -> None:
        self.channels, self.position, self.axis = shape[axis - 1], position, axis

    def select(self, asked: Sequence[Asked], device: torch.device) -> tuple[Tensor, ...]:
        """The channel's index of every picture, int64 [B]."""
        return (torch.tensor(list(asked), device=device),)

    def scores(self, h: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        """F [B], float32."""
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
    """The readout of single channels of one target.

    Args:
        kind: "channel", "neuron" or "logit".
        trunk: cut at the target.
        position: of the neuron; None is the centre of the target's output.
        example: a batch of one picture as the network reads it; it tells the shapes.
        layer: the target's name, for messages.
        target: the target's module, for where its channels are; None reads that off the shape.

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
