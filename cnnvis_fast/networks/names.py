"""Resolves what a user writes to layers and channels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from torch import nn

from ..errors import InputError, nearest


def parse_filters(filters: Iterable[int] | int | str | None, channels: int, layer: str) -> list[int]:
    """Returns the channels of a layer, each once, from numbers, text like "0-63,100", or None for all.

    Raises:
        InputError: the text cannot be read or a channel does not exist.
    """
    if filters is None:
        return list(range(channels))
    if isinstance(filters, str):
        numbers: list[int] = []
        for part in filters.split(","):
            first, dash, last = part.strip().partition("-")
            readable = first.isdecimal() and (last.isdecimal() or not dash)
            if not readable or not part.isascii() or len(part) > 40:
                raise InputError(
                    f"cannot read the filters {filters[:100]!r}: expected numbers and ranges like 0-63,100"
                )
            low, high = int(first), int(last or first)
            if low > high or high >= channels:
                _refuse_filter(part.strip(), channels, layer)
            numbers.extend(range(low, high + 1))
    else:
        try:
            given = filters if isinstance(filters, Iterable) else [filters]
            numbers = [operator.index(number) for number in given]
        except TypeError as error:
            raise InputError(
                f"`filters` must be whole numbers or text like 0-63,100, got {filters!r}"
            ) from error
    for number in numbers:
        if not 0 <= number < channels:
            _refuse_filter(str(number), channels, layer)
    if not numbers:
        raise InputError("no filters given: pass numbers like 0-63,100, or leave `filters` out for all")
    return list(dict.fromkeys(numbers))


def _refuse_filter(part: str, channels: int, layer: str) -> None:
    raise InputError(f"no filter {part} in {layer}: it has {channels}, numbered 0 to {channels - 1}")


LOGITS = "logits"
"""The reserved name of the network's output."""


def convolutions(model: nn.Module) -> dict[str, str]:
    """Maps `conv1`, `conv2`, ... to the dotted names of the convolutions, in the order of definition."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return {f"conv{number}": name for number, name in enumerate(names, 1)}


def module_order(model: nn.Module) -> list[dict[str, str]]:
    """Returns name, alias and kind of every module in the order of definition, the output last."""
    aliases = {name: alias for alias, name in convolutions(model).items()}
    modules = [(name, type(module).__name__) for name, module in model.named_modules() if name]
    rows = [{"name": name, "alias": aliases.get(name, ""), "kind": kind} for name, kind in modules]
    return [*rows, {"name": LOGITS, "alias": "", "kind": "output"}]


def resolve(model: nn.Module, layer: str) -> str:
    """Returns the canonical name of a layer: a dotted path is kept, `convN` becomes the dotted path.

    A module's name takes precedence over an alias; `logits` is always the network's output.

    Raises:
        InputError: there is no such layer; the message names the nearest.
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


def choose_layers(
    model: nn.Module, layers: Sequence[str] | str | None, last_by_default: bool = False
) -> list[str]:
    """Returns the canonical names of the layers that a user asks for, each once.

    Args:
        model: the network.
        layers: one or several dotted names, `convN` or `logits`; "all" for every convolution in the order of
            definition; None or an empty list for the default.
        last_by_default: whether the default is the last convolution alone instead of every convolution.

    Raises:
        InputError: there is no such layer, or the network has no convolution to choose by default.
    """
    if layers is None or layers in ("all", [], ()):
        every = list(convolutions(model).values())
        if not every:
            raise InputError(
                f"{type(model).__name__} has no convolution: name a layer, as `layers` lists them"
            )
        return every[-1:] if last_by_default and layers != "all" else every
    if not isinstance(layers, Iterable):
        raise InputError(f'`layers` must be names, "all" or None, got {layers!r}')
    chosen = [layers] if isinstance(layers, str) else layers
    return list(dict.fromkeys(resolve(model, name) for name in chosen))


def target_modules(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Returns the modules with these canonical names, in order; for `logits` the network itself."""
    return {name: model if name == LOGITS else model.get_submodule(name) for name in names}
