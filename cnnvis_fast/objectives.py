"""What a picture is made for, as one number per picture of a batch.

An objective offers `select`, which turns the filters of a batch into tensors, and `scores`, which takes the
trunk's output and those tensors. Folded objectives never run the target itself, see docs/folded-objective.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from .errors import InputError
from .trunk import Trunk

Position = tuple[int, int]


class Folded:
    """Mean over positions (or one position) of a linear target's output channel, as a dot product.

    f_c(h) = <G_c, h> + b_c. For a convolution G_c is the transposed convolution of the averaging map with
    filter c, for a linear layer it is row c of the weights.
    """

    def __init__(self, tail: nn.Conv2d | nn.Linear, shape: Sequence[int], position: Position | None) -> None:
        self.tail, self.shape, self.position = tail, tuple(shape), position
        self.channels = tail.weight.shape[0]

    def select(self, filters: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """G [B, ...] like the trunk's output and b [B], float32, for one filter per picture."""
        maps = torch.stack([self._map(channel) for channel in filters]).float()
        bias = self.tail.bias
        offset = torch.zeros(len(filters)) if bias is None else bias.detach()[list(filters)].float()
        if maps.ndim == 4:
            maps = maps.contiguous(memory_format=torch.channels_last)
        return maps.to(device), offset.to(device)

    def scores(self, h: Tensor, maps: Tensor, offset: Tensor) -> Tensor:
        """F [B], float32."""
        total = h.float() * maps
        while total.ndim > 1:  # one axis at a time: one long sum would be split among threads
            total = total.sum(-1)
        return total + offset

    def _map(self, channel: int) -> Tensor:
        """G of one filter in float64, made alone so that its bits do not depend on the others asked for."""
        weight = self.tail.weight[channel].detach().double()
        if isinstance(self.tail, nn.Linear):
            return weight
        return convolution_map(self.tail, channel, self.shape, self.position)


def convolution_map(
    convolution: nn.Conv2d, channel: int, shape: Sequence[int], position: Position | None = None
) -> Tensor:
    """G_c of a zero-padded convolution, float64 of the given input shape [C, H, W].

    Args:
        convolution: any stride, padding, dilation and groups.
        channel: c, the output channel.
        shape: [C, H, W] of its input.
        position: (row, column) in its output; None averages over all of them.
    """
    height, width = shape[1:]
    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    padding = _padding(convolution)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    out = [
        (n + sum(pad) - span) // s + 1
        for n, pad, span, s in zip((height, width), padding, spans, stride, strict=True)
    ]
    averaging = torch.zeros(1, 1, *out, dtype=torch.float64)
    if position is None:
        averaging += 1 / (out[0] * out[1])
    else:
        averaging[0, 0, position[0], position[1]] = 1
    weight = convolution.weight[channel].detach().double()
    # Unpadded, then cut to the input: this handles uneven padding and inputs that the stride does not reach.
    full = conv_transpose2d(averaging, weight[None], stride=stride, dilation=dilation)[0]
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


class Selected:
    """Mean over positions (or one position) of one channel of any target's output."""

    def __init__(self, shape: Sequence[int], position: Position | None) -> None:
        self.channels, self.position = shape[0], position

    def select(self, filters: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """The channel's index of every picture, int64 [B]."""
        return (torch.tensor(list(filters), device=device),)

    def scores(self, h: Tensor, index: Tensor) -> Tensor:
        """F [B], float32."""
        chosen = h.take_along_dim(index.view(-1, *[1] * (h.ndim - 1)), 1)[:, 0].float()
        if chosen.ndim == 1:
            return chosen
        if self.position is not None:
            return chosen[:, self.position[0], self.position[1]]
        return chosen.mean(-1).mean(-1)


Objective = Folded | Selected


def neuron_position(kind: str, position: Position | None, size: Sequence[int], layer: str) -> Position | None:
    """The position that an objective of a kind looks at; None for all of them.

    Args:
        kind: "channel", "neuron" or "logit".
        position: asked for; None is the centre.
        size: [height, width] of the target's output, or [] for vectors.
        layer: the target's name, for messages.

    Raises:
        InputError: the kind does not fit the target, or the position lies outside of its output.
    """
    if kind == "logit" and len(size):
        raise InputError(f"the objective logit needs a layer of vectors, and {layer} yields maps: use logits")
    if position is not None and not len(size):
        raise InputError(f"`position` is for maps, and {layer} yields vectors: leave it out")
    if kind != "neuron" or not len(size):
        return None
    height, width = size
    place = position or (height // 2, width // 2)
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise InputError(f"`position` must lie in the {height} x {width} output of {layer}, got {place}")
    return place


def make_objective(
    kind: str, trunk: Trunk, position: Position | None, example: Tensor, layer: str
) -> Objective:
    """The objective of a target.

    Args:
        kind: "channel", "neuron" or "logit".
        trunk: cut at the target.
        position: of the neuron; None is the centre of the target's output.
        example: a batch of one picture as the network reads it; it tells the shapes.
        layer: the target's name, for messages.

    Raises:
        InputError: the kind does not fit the target, or the position lies outside of its output.
    """
    with torch.no_grad():
        h = trunk.module(example.clone())
        output = h if trunk.tail is None else trunk.tail(h)
    place = neuron_position(kind, position, output.shape[2:], layer)
    if trunk.tail is not None:
        return Folded(trunk.tail, h.shape[1:], place)
    return Selected(output.shape[1:], place)
