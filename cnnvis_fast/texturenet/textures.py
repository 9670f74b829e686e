"""Procedural textures: the data set that `texturenet` is trained on.

Every class is a pattern whose true properties are known in closed form (the orientation and the frequency of
a grating, the hue of a color), which makes the network an oracle: the picture that maximizes the class
`stripes_vertical` must be a vertical grating.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grating:
    """True geometry of a grating class.

    Attributes:
        angle: direction of the wave vector in degrees, from the x axis towards the y axis
            (downwards); vertical stripes vary along x and have angle 0.
        frequency: cycles per pixel.
    """

    angle: float
    frequency: float


COARSE, FINE = 1 / 15, 1 / 6
_ANGLES = {"vertical": 0.0, "rising": 45.0, "horizontal": 90.0, "falling": 135.0}
GRATINGS: dict[str, Grating] = {
    f"stripes_{name}{suffix}": Grating(angle, frequency)
    for suffix, frequency in (("", COARSE), ("_fine", FINE))
    for name, angle in _ANGLES.items()
}
HUES: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.12, 0.7, 0.15),
    "blue": (0.12, 0.2, 0.85),
    "yellow": (0.9, 0.8, 0.12),
    "grey": (0.5, 0.5, 0.5),
}


class _Canvas:
    """Random numbers and pixel coordinates that the drawing functions of one call share."""

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self.count, self.size, self.generator = count, size, generator
        axis = torch.arange(size, dtype=torch.float32)
        self.y, self.x = axis.view(1, -1, 1), axis.view(1, 1, -1)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Returns uniform numbers [count, *shape]; without a shape, [count, 1, 1]."""
        return low + (high - low) * torch.rand(self.count, *(shape or (1, 1)), generator=self.generator)

    def wave(self, angle: float, frequency: float) -> Tensor:
        """Returns the phase in cycles [count, size, size] of a plane wave.

        Angle and frequency vary by a few degrees and percent.
        """
        theta = (angle + self.uniform(-6, 6)) * (math.pi / 180)
        k = frequency * self.uniform(0.9, 1.1)
        return k * (theta.cos() * self.x + theta.sin() * self.y) + self.uniform(0, 1)

    def smooth(self, cells: int) -> Tensor:
        """Returns smooth noise [count, size, size], about `cells` features per side, roughly in [-1, 1]."""
        coarse = torch.randn(self.count, 1, cells, cells, generator=self.generator)
        return torch.nn.functional.interpolate(
            coarse, size=(self.size, self.size), mode="bicubic", align_corners=False
        )[:, 0].clamp(-2, 2)

    def offsets(self, density: float) -> tuple[Tensor, Tensor]:
        """Returns distances (x, y) of all pixels to random points, each [count, points, size, size].

        The points lie up to 8 pixels beyond the frame, `density` of them per pixel.
        """
        number = max(4, round(density * (self.size + 16) ** 2))
        points = self.uniform(-8, self.size + 8, 2, number, 1, 1)
        dx, dy = torch.broadcast_tensors(self.x[:, None] - points[:, 0], self.y[:, None] - points[:, 1])
        return dx, dy


def _stripes(canvas: _Canvas, grating: Grating) -> Tensor:
    wave = torch.sin(2 * math.pi * canvas.wave(grating.angle, grating.frequency))
    sharpness = canvas.uniform(0.8, 4.0)
    return 0.5 + 0.5 * torch.tanh(sharpness * wave) / torch.tanh(sharpness)


def _checks(canvas: _Canvas, frequency: float) -> Tensor:
    turn = float(canvas.uniform(-8, 8)[0])
    across = torch.sin(2 * math.pi * canvas.wave(turn, frequency))
    down = torch.sin(2 * math.pi * canvas.wave(turn + 90, frequency))
    return 0.5 + 0.5 * torch.tanh(6 * across * down)


def _dots(canvas: _Canvas) -> Tensor:
    dx, dy = canvas.offsets(0.006)
    radius = canvas.uniform(2.5, 4.0, dx.shape[1], 1, 1)
    return torch.sigmoid(3 * (radius - torch.hypot(dx, dy))).amax(1)


def _rings(canvas: _Canvas) -> Tensor:
    dx, dy = canvas.offsets(0.0022)
    radius = canvas.uniform(6, 10, dx.shape[1], 1, 1)
    return torch.sigmoid(3 * (1.5 - (torch.hypot(dx, dy) - radius).abs())).amax(1)


def _blobs(canvas: _Canvas) -> Tensor:
    return torch.sigmoid(5 * canvas.smooth(max(3, canvas.size // 11)))


def _bricks(canvas: _Canvas) -> Tensor:
    height, width = 9 * canvas.uniform(0.9, 1.1), 20 * canvas.uniform(0.9, 1.1)
    row = (canvas.y + canvas.uniform(0, 20)) / height
    column = (canvas.x + canvas.uniform(0, 20)) / width + 0.5 * (row.floor() % 2)
    to_row = (row % 1 - 0.5).abs() * height
    to_column = (column % 1 - 0.5).abs() * width
    joint = torch.maximum(to_row - height / 2 + 1.2, to_column - width / 2 + 1.2)
    return torch.sigmoid(-4 * joint)


def _noise(canvas: _Canvas) -> Tensor:
    return torch.rand(canvas.count, canvas.size, canvas.size, generator=canvas.generator)


_PATTERNS: dict[str, Callable[[_Canvas], Tensor]] = {
    **{name: partial(_stripes, grating=grating) for name, grating in GRATINGS.items()},
    "checks": partial(_checks, frequency=1 / 22),
    "checks_fine": partial(_checks, frequency=1 / 10),
    "dots": _dots,
    "rings": _rings,
    "blobs": _blobs,
    "bricks": _bricks,
    "noise": _noise,
}
CLASSES: tuple[str, ...] = (*_PATTERNS, *HUES)
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def _two_colors(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    """Returns two random colors [count, 3, 1, 1] whose luminance differs by 0.3 or more."""
    first, second = canvas.uniform(0, 1, 3), canvas.uniform(0, 1, 3)
    contrast = ((first - second) * _LUMINANCE).sum(1, keepdim=True)
    missing = torch.where(contrast < 0, -1.0, 1.0) * (0.3 - contrast.abs()).clamp_min(0) / 2
    return (first + missing)[..., None, None], (second - missing)[..., None, None]


def draw(name: str, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draws pictures of one texture class.

    Args:
        name: a name in `CLASSES`.
        count: number of pictures.
        size: side of the square pictures in pixels.
        generator: source of all randomness.

    Returns:
        float32 [count, 3, size, size] in [0, 1].

    Raises:
        ValueError: the class is unknown.
    """
    canvas = _Canvas(count, size, generator)
    if name in HUES:
        base = torch.tensor(HUES[name]).view(1, 3, 1, 1) + 0.08 * canvas.uniform(-1, 1, 3, 1, 1)
        if name == "grey":  # from black to white: a picture without a hue must not look like one with a hue
            base = base + canvas.uniform(-0.5, 0.5, 1, 1, 1)
        light = 1 + 0.15 * canvas.uniform(0, 1, 1, 1, 1) * canvas.smooth(4)[:, None]
        picture = base * light * canvas.uniform(0.75, 1.1, 1, 1, 1)
    elif name in _PATTERNS:
        pattern = _PATTERNS[name](canvas)[:, None]
        first, second = _two_colors(canvas)
        picture = second + (first - second) * pattern
        picture = picture * (1 + 0.15 * canvas.smooth(3)[:, None])
    else:
        raise ValueError(f"`name` must be one of {', '.join(CLASSES)}, got {name!r}")
    grain = torch.randn(picture.shape, generator=generator) * canvas.uniform(0, 0.06, 1, 1, 1)
    return (picture + grain).clamp(0, 1)


def batch(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws `count` pictures of every class.

    Returns:
        pictures float32 [count * len(CLASSES), 3, size, size] in [0, 1] and labels int64.
    """
    pictures = torch.cat([draw(name, count, size, generator) for name in CLASSES])
    return pictures, torch.arange(len(CLASSES)).repeat_interleave(count)
