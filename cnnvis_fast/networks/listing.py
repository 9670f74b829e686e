"""Lists the layers of a network that can be targets: names, kinds, sizes, receptive fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..config import configure
from ..errors import InputError, first_line
from ..program import autograd_segments
from .channels import channel_axis
from .hooks import hooked
from .load import open_model
from .memory import check_fits
from .names import LOGITS, convolutions
from .preprocessing import known_source, usual_size
from .probe import evaluating, input_channels
from .receptive_fields import receptive_fields

_MOST_BYTES = 2**32  # allowed for a pass that only serves a listing


@dataclass(frozen=True)
class Layer:
    """One layer that can be a target.

    Attributes:
        name: dotted module path, or `logits`.
        alias: `convN` for the N-th convolution, else empty.
        kind: class of the module.
        channels: number of channels of its output; each is a unit.
        height: height of its output; the number of tokens if it yields tokens; 0 for a vector.
        width: width of its output; 0 for tokens or a vector.
        receptive_field: longer side in pixels of what one output position sees; -1 for the whole picture,
            None if it cannot be determined from the graph.
        layout: "maps" [N, C, H, W], "maps, channels last" [N, H, W, C], "tokens" [N, T, C] or
            "vector" [N, C].
        through_autograd: the operations up to this layer that autograd differentiates even with
            `program=True`, by the names of the graph's nodes; None if the network cannot be traced, so that
            there is no program.
    """

    name: str
    alias: str
    kind: str
    channels: int
    height: int
    width: int
    receptive_field: int | None
    layout: str
    through_autograd: list[str] | None = field(default_factory=list)


class LayerTable(Sequence[Layer]):
    """The possible targets of one network in the order in which they run; prints as a table."""

    def __init__(self, rows: list[Layer]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._rows)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Returns one dictionary per row."""
        return [asdict(row) for row in self._rows]

    def __str__(self) -> str:
        shown = any(row.through_autograd for row in self._rows)
        header = ("name", "alias", "kind", "channels", "output", "receptive field", "through autograd")
        cells = [header if shown else header[:-1]]
        for row in self._rows:
            output = f"{row.height} x {row.width}" + row.layout.removeprefix("maps")
            if row.layout in ("tokens", "vector"):
                output = f"{row.height} tokens" if row.height else "vector"
            seen = {None: "unknown", -1: "whole picture"}.get(
                row.receptive_field, f"{row.receptive_field} px"
            )
            cell = (row.name, row.alias, row.kind, str(row.channels), output, seen)
            cells.append((*cell, _listed(row.through_autograd)) if shown else cell)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
        return "\n".join(lines)

    __repr__ = __str__


def layers(
    model: nn.Module | str, weights: Any = None, size: int | None = None, channels: int | None = None
) -> LayerTable:
    """Lists what can be visualized: every module that yields maps, tokens or a vector, and `logits`.

    Args:
        model: a network, or a name that `load_model` accepts.
        weights: weights of a network given by name; the listing does not need trained ones.
        size: side of the input in pixels, default the network's own; where it is not known, 224, or
            else the first usual size at which the network runs.
        channels: number of input channels, default what the first convolution reads.

    Raises:
        InputError: the network does not run at that size, or a picture of that size does not fit into memory.
    """
    network = open_model(model, weights)
    size, channels = configure(size=size).size, channels or input_channels(network)
    size = size or usual_size(network, channels, known_source(network))
    check_fits(network, channels, size, most=_MOST_BYTES)
    parameter = next(network.parameters(), torch.zeros(()))
    example = torch.zeros(1, channels, size, size, dtype=parameter.dtype, device=parameter.device)
    outputs = _output_shapes(network, example)
    with evaluating(network):
        fields = receptive_fields(network, example)
        segments = autograd_segments(network, tuple(example.shape), example.dtype)
    fields[LOGITS] = fields.pop("", None)
    if "" in segments:
        segments[LOGITS] = segments.pop("")
    aliases = {name: alias for alias, name in convolutions(network).items()}
    modules = dict(network.named_modules())
    rows = []
    for name, shape in outputs.items():
        module = None if name == LOGITS else modules[name]
        kind = "output" if module is None else type(module).__name__
        axis = channel_axis(shape, module)
        if axis is None:
            continue
        # One more zero for tokens, two for vectors.
        height, width, *_ = (*(size for place, size in enumerate(shape) if place not in (0, axis)), 0, 0)
        layout = _LAYOUTS[len(shape)] + (", channels last" if (len(shape), axis) == (4, 3) else "")
        seen = fields.get(name)
        sizes = (shape[axis], height, width)
        rows.append(Layer(name, aliases.get(name, ""), kind, *sizes, seen, layout, segments.get(name)))
    return LayerTable(rows)


_LAYOUTS = {2: "vector", 3: "tokens", 4: "maps"}


def _listed(segments: list[str] | None) -> str:
    if segments is None:
        return "all of it"
    more = f" and {len(segments) - 3} more" if len(segments) > 3 else ""
    return ", ".join(segments[:3]) + more


def _output_shapes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Returns the output shapes of all modules that yield a single tensor, each from its first run."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, _module: nn.Module, output: Any) -> None:
        # Only batches of one picture count: tokens of several windows, or time before batch, have more rows.
        if isinstance(output, Tensor) and output.ndim in _LAYOUTS and len(output) == 1:
            shapes.setdefault(name, tuple(output.shape))

    # A Sequential only repeats its last member.
    members = {
        name: module
        for name, module in model.named_modules()
        if name and not isinstance(module, nn.Sequential)
    }
    try:
        with evaluating(model), hooked(members, record):
            output = model(example.clone())
    except Exception as error:
        shape = " x ".join(map(str, example.shape[1:]))
        raise InputError(
            f"{type(model).__name__} does not run on a {shape} picture ({first_line(error)}): "
            "pass another size"
        ) from error
    record(LOGITS, model, output)
    return shapes
