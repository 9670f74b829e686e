"""Where a network came from and how it wants its pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a network came from and what it reads.

    Attributes:
        name: of the network, or the class of a module that was handed over.
        weights: the weights' name or file name; "none" for random ones, "given" for a module's own.
        mean: per channel, of pictures in [0, 1].
        std: per channel.
        size: side in pixels of the network's usual input.
        resize: shorter side in pixels of a photo before its centre is cropped; None for `size`.
        bicubic: whether photos are resized by bicubic interpolation, else bilinear.
    """

    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int | None = None
    bicubic: bool = False
