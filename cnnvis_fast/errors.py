"""Defines the error that every bad input raises, and what its messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A bad input; the message is one sentence: what was wrong, what was expected, what to try."""


class CannotWrite(InputError):
    """A folder or a file that cannot be written; the cause is the system's error."""


def first_line(error: BaseException) -> str:
    """Returns up to 120 characters of an error's first line, with "?" for unprintable ones."""
    line = (str(error) or type(error).__name__).splitlines()[0][:120]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """Returns the valid names most like `name` as the end of a sentence: "; did you mean a, b or c?"."""
    names = list(dict.fromkeys(valid))
    found = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    found += [other for other in names if name and other.startswith(name) and other not in found]
    found = found[:count]
    if not found:
        return ""
    return "; did you mean " + " or ".join(filter(None, (", ".join(found[:-1]), found[-1]))) + "?"
