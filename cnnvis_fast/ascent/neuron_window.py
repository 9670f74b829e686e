"""Finds the part of the picture that a neuron sees, so that the network need not run on the rest.

A position of a convolutional layer depends on its receptive field alone. Cut out along the grid of the
layer's strides, that field gives the neuron the value that it has in the whole picture, and its gradient is
zero everywhere else. Zeros that the network pads at the cut reach only positions that the neuron does not
depend on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..networks.receptive_field_rules import Axis, Seen
from ..networks.receptive_fields import windows
from ..networks.trunk import Trunk
from ..objectives.folded import Folded, Selected, make_readout

_WORTH = 0.8  # share of the picture's area above which there is little to save


@dataclass(frozen=True)
class Window:
    """A rectangle of the network's input in pixels, and the neuron's position in the layer's output."""

    top: int
    left: int
    height: int
    width: int
    position: tuple[int, int]

    def cut(self, x: Tensor) -> Tensor:
        """Returns this part of pictures [B, C, H, W], channels last."""
        part = x[..., self.top : self.top + self.height, self.left : self.left + self.width]
        return part.contiguous(memory_format=torch.channels_last)

    def adjoint(self, g: Tensor, size: Sequence[int]) -> Tensor:
        """Applies the adjoint of `cut`: pads with zeros to `size` (H, W)."""
        right, bottom = size[1] - self.left - self.width, size[0] - self.top - self.height
        around = pad(g, (self.left, right, self.top, bottom))
        return around.contiguous(memory_format=torch.channels_last)


def neuron_window(model: nn.Module, layer: str, position: Sequence[int], example: Tensor) -> Window | None:
    """Returns what one position of a layer sees; None where that is unknown or most of the picture.

    Args:
        model: the whole network, in eval mode.
        layer: canonical name of the layer.
        position: (row, column) in the layer's output.
        example: a batch of one picture as the network reads it.
    """
    seen = windows(model, example).get(layer)
    if not isinstance(seen, Seen) or seen.positions != {2, 3} or len(position) != 2:
        return None
    height, width = example.shape[2:]
    rows = _span(seen.rows, position[0], height)
    columns = _span(seen.columns, position[1], width)
    if rows is None or columns is None:
        return None
    (top, tall, row), (left, wide, column) = rows, columns
    if tall * wide > _WORTH * height * width:
        return None
    return Window(top, left, tall, wide, (row, column))


def _span(axis: Axis, place: int, size: int) -> tuple[int, int, int] | None:
    """Returns the first pixel, the length and the number of the place within it."""
    if axis.start is None or not math.isfinite(axis.size) or axis.jump != int(axis.jump):
        return None
    jump = int(axis.jump)
    begin = axis.start + place * jump
    skipped = max(0, math.floor(begin / jump))  # whole strides, so that no layer's grid moves
    first, end = skipped * jump, min(size, math.ceil(begin + axis.size))
    return (first, end - first, place - skipped) if end > first else None


def in_window(
    network: nn.Module, layer: str, trunk: Trunk, objective: Folded | Selected, example: Tensor
) -> tuple[Window | None, Folded | Selected]:
    """Returns a neuron's window and its readout there; None and `objective` where the whole picture runs.

    A random picture must give the same values of the neuron in the window. If it does not, a warning says so
    and the whole picture runs.

    Args:
        network: the whole network, in eval mode, float32 on the CPU.
        layer: canonical name of the layer.
        trunk: trunk cut at the layer.
        objective: readout of the neuron in the whole picture.
        example: a batch of one picture as the network reads it.
    """
    window = neuron_window(network, layer, objective.position or (), example)
    if window is None:
        return None, objective
    inside = make_readout(
        "neuron", trunk, window.position, window.cut(example), layer, network.get_submodule(layer)
    )
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    units, values = range(min(4, objective.channels)), []
    with torch.no_grad():
        for readout, seen in ((objective, x), (inside, window.cut(x))):
            h = trunk.module(seen)
            values.append(torch.cat([readout.scores(h, *readout.select([unit], h.device)) for unit in units]))
    whole, part = values
    if torch.allclose(part, whole, rtol=0, atol=1e-3 * float(whole.abs().max()) + 1e-12):
        return window, inside
    warnings.warn(
        f"{layer} at {objective.position} does not depend on what its receptive field says: the network runs "
        "on the whole picture, more slowly",
        stacklevel=5,
    )
    return None, objective
