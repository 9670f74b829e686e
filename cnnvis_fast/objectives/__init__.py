"""What a picture is made for: channels, neurons, classes, directions, and sums of them.

    from cnnvis_fast.objectives import channel, neuron

`vocabulary` describes objectives, `text` parses them, and `readout`, `folded` and `terms` compute them from
what a network yields. May import `networks`, `images`, `program` and everything below.
"""

from ..images.photos import Photograph
from .text import parse, reads_as_objective
from .vocabulary import (
    CENTRE,
    Caricature,
    Direction,
    Dream,
    Likeness,
    Objective,
    Position,
    Term,
    Unit,
    Variety,
    accentuation,
    caricature,
    channel,
    deepdream,
    direction,
    diverse,
    interpolate,
    inversion,
    logit,
    neuron,
)

__all__ = [
    "CENTRE",
    "Caricature",
    "Direction",
    "Dream",
    "Likeness",
    "Objective",
    "Photograph",
    "Position",
    "Term",
    "Unit",
    "Variety",
    "accentuation",
    "caricature",
    "channel",
    "deepdream",
    "direction",
    "diverse",
    "interpolate",
    "inversion",
    "logit",
    "neuron",
    "parse",
    "reads_as_objective",
]
