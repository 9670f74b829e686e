"""Describes what a picture is made for, in a small vocabulary of terms that add up.

The vocabulary::

    channel("conv5", 3)                     a filter: the mean of its output over all positions
    neuron("conv5", 3)                      the same at one position, by default the center
    logit(207)                              a class, before the softmax
    direction("conv5", vector)              a direction in the space of a layer's channels
    deepdream("conv4")                      more of whatever a layer already responds to
    caricature("dog.jpg", "conv4")          what a layer sees in a photo, exaggerated
    inversion("dog.jpg", "conv4")           a picture that a layer cannot tell from a photo
    accentuation("dog.jpg", logit(207))     a photo, changed until a unit responds more
    0.5 * channel("conv5", 3) - channel("conv4", 1)
    interpolate(channel("conv5", 3), channel("conv5", 4), 5)     five objectives between two
    diverse(channel("conv5", 3), 4)                              four pictures that differ

`maximize` takes such objectives, or text that `parse` reads, in place of a layer's name. Sources: Erhan et
al. 2009 (channel, neuron), Simonyan et al. 2014 (logit), Mordvintsev et al. 2015 (DeepDream), Mahendran and
Vedaldi 2015 (inversion), Olah et al. 2017 and 2018 (direction, interpolation, diversity, caricature with the
cosine similarity of Carter et al. 2019), Hamblin et al. 2024 (accentuation).

In this package `vocabulary` describes objectives, `text` parses them, and `readout`, `folded` and `terms`
compute them from a network's output. It may import `networks`, `images`, `program` and everything below.
"""

from ..images.photos import Photograph
from .text import parse, reads_as_objective
from .vocabulary import (
    CENTER,
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
    "CENTER",
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
