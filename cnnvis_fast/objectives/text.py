"""Reads objectives from text, as on the command line."""

from __future__ import annotations

import re

from ..errors import InputError
from ..images.photos import Photo, Photograph
from .vocabulary import CENTER, Objective, caricature, channel, deepdream, inversion, neuron

_TERM = re.compile(
    r"(?:(?P<weight>\d+\.?\d*(?:e[+-]?\d+)?)\s*\*\s*)?"
    r"(?:(?P<name>deepdream|caricature|inversion)\((?P<target>[^()\s]+)\)"
    r"|(?P<layer>[^\s:*()]+):(?P<unit>\d+)(?:@(?P<position>center|centre|\d+(?:,\d+)*))?)"
)


def reads_as_objective(text: str) -> bool:
    """Returns whether a text is meant as an objective and not as a layer's name."""
    return any(sign in text for sign in ":(*")


def parse(text: str, photo: Photo | Photograph | None = None) -> Objective:
    """Reads an objective: a term or a sum of terms.

    Terms are `layer:unit`, `layer:unit@row,column`, `layer:unit@center` (or `@centre`), `deepdream(layer)`,
    and, for the photo, `caricature(layer)` and `inversion(layer)`. A term may have a weight,
    `0.5*layer:unit`. Terms are joined by a plus or a minus with spaces around it.

    Raises:
        InputError: the text is not an objective, or needs a photo.
    """
    total: Objective | None = None
    pieces = re.split(r"\s+([+-])\s+", text.strip())
    sign = 1.0
    for number, piece in enumerate(pieces):
        if number % 2:
            sign = 1.0 if piece == "+" else -1.0
            continue
        minus = number == 0 and piece.startswith("-")
        found = _TERM.fullmatch(piece[1:].lstrip() if minus else piece)
        if not found:
            raise InputError(
                f"cannot read the objective {text!r} at {piece!r}: expected layer:unit, "
                "layer:unit@row,column or deepdream(layer), joined by ' + ' or ' - ', with weights like 0.5*"
            )
        term = _parsed(found, photo) * (float(found["weight"] or 1) * (-1 if minus else sign))
        total = term if total is None else total + term
    assert total is not None
    return total


def _parsed(found: re.Match[str], photo: Photo | Photograph | None) -> Objective:
    if found["name"] == "deepdream":
        return deepdream(found["target"])
    if found["name"]:
        if photo is None:
            raise InputError(f"{found[0]!r} needs a photo: pass one, on the command line with --photo")
        return {"caricature": caricature, "inversion": inversion}[found["name"]](photo, found["target"])
    if found["position"] is None:
        return channel(found["layer"], int(found["unit"]))
    at_center = found["position"] in ("center", "centre")
    position = CENTER if at_center else tuple(map(int, found["position"].split(",")))
    return neuron(found["layer"], int(found["unit"]), position)
