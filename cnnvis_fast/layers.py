"""The addressable targets of a network: names, kinds, sizes, receptive fields."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from .config import configure
from .errors import InputError, first_line, nearest
from .footprint import check_fits
from .models import evaluating, input_channels, open_model

LOGITS = "logits"
"""The reserved name of the network's output."""


@dataclass(frozen=True)
class Layer:
    """One addressable target.

    Attributes:
        name: dotted module path, or `logits`.
        alias: `convN` for the N-th convolution, else empty.
        kind: class of the module.
        channels: of its output; each is a filter.
        height: of its output, 0 where it is a vector.
        width: of its output, 0 where it is a vector.
        receptive_field: longer side in pixels of what one output position sees; -1 for the whole picture,
            None where the graph does not tell.
    """

    name: str
    alias: str
    kind: str
    channels: int
    height: int
    width: int
    receptive_field: int | None


class LayerTable(Sequence[Layer]):
    """The targets of one network in the order in which they run; prints as a table."""

    def __init__(self, rows: list[Layer]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._rows)

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [asdict(row) for row in self._rows]

    def __str__(self) -> str:
        cells = [("name", "alias", "kind", "channels", "output", "receptive field")]
        for row in self._rows:
            output = f"{row.height} x {row.width}" if row.height else "vector"
            field = {None: "unknown", -1: "whole picture"}.get(
                row.receptive_field, f"{row.receptive_field} px"
            )
            cells.append((row.name, row.alias, row.kind, str(row.channels), output, field))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
        return "\n".join(lines)

    __repr__ = __str__


def layers(
    model: nn.Module | str, weights: Any = None, size: int | None = None, channels: int | None = None
) -> LayerTable:
    """Lists what can be visualized: every module that yields one map or vector per picture, and `logits`.

    Args:
        model: a network, or a name for `load_model`.
        weights: of a network given by name; the listing does not need trained ones.
        size: side of the input in pixels, default the network's own.
        channels: of the input, default what the first convolution reads.

    Raises:
        InputError: the network does not run at that size.
    """
    network = open_model(model, weights)
    known = getattr(network, "cnnvis_source", None)
    size = configure(size=size).size or (known.size if known else 224)
    check_fits(network, channels or input_channels(network), size)
    outputs = _output_shapes(network, channels or input_channels(network), size)
    aliases = {name: alias for alias, name in convolutions(network).items()}
    fields = _receptive_fields(network)
    modules = dict(network.named_modules())
    rows = []
    for name, shape in outputs.items():
        height, width = shape[2:] if len(shape) == 4 else (0, 0)
        kind = "output" if name == LOGITS else type(modules[name]).__name__
        rows.append(Layer(name, aliases.get(name, ""), kind, shape[1], height, width, fields.get(name)))
    return LayerTable(rows)


def convolutions(model: nn.Module) -> dict[str, str]:
    """`conv1`, `conv2`, ... to the dotted names of the convolutions, in the order of their definition."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return {f"conv{number}": name for number, name in enumerate(names, 1)}


def resolve(model: nn.Module, layer: str) -> str:
    """The canonical name of a target: a dotted path stays, `convN` becomes one; modules win over aliases.

    `logits` is always the network's output.

    Raises:
        InputError: there is no such target; the message names the nearest.
    """
    if not isinstance(layer, str):
        raise InputError(f"`layer` must be a name like features.28, conv10 or logits, got {layer!r}")
    names = [name for name, _ in model.named_modules() if name]
    aliases = convolutions(model)
    if layer in names or layer == LOGITS:
        return layer
    if layer in aliases:
        return aliases[layer]
    hint = nearest(layer, [*names, *aliases, LOGITS]) or f": the first are {', '.join(names[:5])}"
    raise InputError(f"unknown layer {layer!r} of {type(model).__name__}{hint}")


def _output_shapes(model: nn.Module, channels: int, size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, module in model.named_modules():
        # A Sequential only repeats its last member.
        if name and not isinstance(module, nn.Sequential):
            handles.append(module.register_forward_hook(_recorder(name, shapes)))
    parameter = next(model.parameters(), torch.zeros(()))
    try:
        with evaluating(model):
            output = model(
                torch.zeros(1, channels, size, size, dtype=parameter.dtype, device=parameter.device)
            )
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} does not run on a {channels} x {size} x {size} picture "
            f"({first_line(error)}): pass another size"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(output, Tensor) and output.ndim in (2, 4):
        shapes[LOGITS] = tuple(output.shape)
    return shapes


def _recorder(name: str, shapes: dict[str, tuple[int, ...]]) -> Callable[..., None]:
    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        dimensions = (2,) if isinstance(module, nn.Linear) else (2, 4)
        if isinstance(output, Tensor) and output.ndim in dimensions:
            shapes.setdefault(name, tuple(output.shape))

    return record


# Functions through which a position sees what its inputs at that position see.
_POINTWISE = {
    *(operator.add, operator.iadd, operator.mul, operator.getitem, torch.add, torch.mul, torch.cat),
    *(torch.relu, torch.sigmoid, torch.unsqueeze, functional.relu, functional.relu6, functional.silu),
    *(
        functional.gelu,
        functional.hardswish,
        functional.hardsigmoid,
        functional.dropout,
        functional.leaky_relu,
    ),
}
_POINTWISE_MODULES = (
    *(nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Sigmoid, nn.Tanh, nn.ELU, nn.PReLU, nn.Softplus, nn.Dropout, nn.Dropout2d, nn.Identity),
)
_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_Axis = tuple[float, float]  # receptive field and distance between neighbours, in input pixels
_Field = tuple[_Axis, _Axis]  # of rows and of columns
_WHOLE: _Field = ((math.inf, math.inf), (math.inf, math.inf))


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _window(field: _Field, module: nn.Module) -> _Field:
    if field == _WHOLE:
        return field
    dilations = _pair(getattr(module, "dilation", 1))
    sides = zip(field, _pair(module.kernel_size), _pair(module.stride), dilations, strict=True)
    rows, columns = (
        (size + (kernel - 1) * dilation * jump, jump * stride)
        for (size, jump), kernel, stride, dilation in sides
    )
    return rows, columns


def _widest(fields: Sequence[_Field]) -> _Field:
    rows, columns = (
        (max(size for size, _ in axis), max(jump for _, jump in axis)) for axis in zip(*fields, strict=True)
    )
    return rows, columns


def _receptive_fields(model: nn.Module) -> dict[str, int | None]:
    """Receptive fields (Araujo et al. 2019) along the widest path to each module; {} if untraceable."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # any exception: tracing runs the user's code on stand-ins for tensors
        return {}
    modules = dict(model.named_modules())
    fields: dict[fx.Node, _Field | None] = {}
    found: dict[str, int | None] = {}
    for node in graph.nodes:
        inputs = [fields[other] for other in node.all_input_nodes]
        known = [field for field in inputs if field is not None]
        field: _Field | None = None
        if node.op == "placeholder":
            field = ((1, 1), (1, 1))
        elif inputs and len(known) == len(inputs):
            widest = _widest(known)
            module = modules[str(node.target)] if node.op == "call_module" else None
            if isinstance(module, _WINDOWS):
                field = _window(widest, module)
            elif isinstance(module, _POINTWISE_MODULES) or node.target in _POINTWISE or node.op == "output":
                field = widest
            elif isinstance(module, nn.AdaptiveAvgPool2d | nn.Linear | nn.Flatten) or node.target in (
                *(torch.flatten, "flatten", "mean", functional.adaptive_avg_pool2d),
            ):
                field = _WHOLE
        fields[node] = field
        side = None if field is None else max(field[0][0], field[1][0])
        seen = None if side is None else (-1 if math.isinf(side) else int(side))
        if node.op == "call_module":
            found.setdefault(str(node.target), seen)  # a module that runs twice is meant where it runs first
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            if path != node.target:
                found[path] = seen
        if node.op == "output":
            found[LOGITS] = seen
    return found
