"""The error that every bad input ends in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the caller gave is wrong; the message is one sentence: what, what was expected, what to try."""


def first_line(error: BaseException) -> str:
    """What a foreign error says, short enough for a sentence of ours."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names most like `name`, as the end of a sentence: "; did you mean a, b or c?"."""
    names = list(valid)
    found = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    found += [other for other in names if name and other.startswith(name) and other not in found]
    found = found[:count]
    if not found:
        return ""
    return "; did you mean " + " or ".join(filter(None, (", ".join(found[:-1]), found[-1]))) + "?"
