"""Channels of a layer out of what a user writes."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from .errors import InputError


def parse_filters(filters: Iterable[int] | int | str | None, channels: int, layer: str) -> list[int]:
    """Channels of a layer out of numbers, text like "0-63,100", or None for all, each once.

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
        raise InputError("no filters given: pass numbers like 0-63,100, or leave them out for all")
    return list(dict.fromkeys(numbers))


def _refuse_filter(part: str, channels: int, layer: str) -> None:
    raise InputError(f"no filter {part} in {layer}: it has {channels}, numbered 0 to {channels - 1}")
