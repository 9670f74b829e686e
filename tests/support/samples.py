"""Inputs of every op for all tests that use them: parity, gradients, `opcheck`, compilation, benchmarks.

A sample is a recipe, not a tensor: each call of `inputs` draws the same new tensors again, so that no test
sees what another test has changed, especially with an op that works in place.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8
_SIZES = ((17, 19), (8, 8), (32, 32))
_CHANNELS = (3, 1, 4)
_BATCHES = (2, 5, 1)
_WARPS = ("none", "jitter", "affine")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Sample:
    """One call of an op; the name serves as a test ID and seeds the numbers."""

    name: str
    draw: Callable[[torch.Generator], tuple[Any, ...]]

    def __str__(self) -> str:
        return self.name

    def inputs(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, ...]:
        """Returns the op's arguments in order; with `dtype` float64 the same numbers, converted."""
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:7], "little")
        return tuple(
            _convert(value, dtype, device) for value in self.draw(torch.Generator().manual_seed(seed))
        )


def sample_inputs(op: str) -> list[Sample]:
    """Returns samples of "render", "render_backward", "ascend_", "dot" or "restrain"."""
    return list(globals()[f"_{op.rstrip('_')}"]())


def _convert(value: Any, dtype: torch.dtype, device: str) -> Any:
    if isinstance(value, list):
        return [_convert(one, dtype, device) for one in value]
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype if value.dtype == torch.float32 else value.dtype)


def _shapes() -> Iterator[tuple[int, int, int, int]]:
    """Yields a Latin square: every pair of values of channels, size and batch occurs once."""
    for (i, size), (j, channels) in itertools.product(enumerate(_SIZES), enumerate(_CHANNELS)):
        yield (_BATCHES[(i + j) % 3], channels, *size)


def _warp(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
    batch, _, height, width = shape
    if kind == "none":
        return None
    if kind == "jitter":
        shift = torch.randint(-3, 4, (batch, 2), generator=generator)
        # More than once around, and to the left: languages differ in what `%` and an index do with it.
        shift[-1] = torch.tensor([2 * height + 3, -width - 5])
        return shift
    turn, zoom, down, right = torch.rand(4, batch, generator=generator) * 2 - 1
    # Far enough to be reflected at a border, for the last picture more than once.
    reach = torch.full((batch,), 0.3).index_fill(0, torch.tensor([batch - 1]), 1.7)
    factor, angle = 1 + 0.3 * zoom, math.pi / 4 * turn
    cosine, sine = factor * angle.cos(), factor * angle.sin()
    rows = (
        torch.stack((cosine, -sine, reach * right), -1),
        torch.stack((sine, cosine, reach * down), -1),
    )
    return torch.stack(rows, 1)


def _preprocessing(channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    color = torch.randn(channels, channels, generator=generator) / channels**0.5
    mean = torch.rand(channels, generator=generator)
    std = 0.2 + torch.rand(channels, generator=generator)
    return color, mean, std


def _pictures(dtypes: dict[str, torch.dtype]) -> Iterator[tuple[str, tuple[int, ...], str, torch.dtype]]:
    for shape, warp, (name, dtype) in itertools.product(_shapes(), _WARPS, dtypes.items()):
        yield f"{'x'.join(map(str, shape))}-{warp}-{name}", shape, warp, dtype


def _render() -> Iterator[Sample]:
    for name, shape, kind, dtype in _pictures(_DTYPES):

        def draw(
            g: torch.Generator,
            shape: tuple[int, ...] = shape,
            kind: str = kind,
            dtype: torch.dtype = dtype,
        ) -> tuple[Any, ...]:
            z = 1.5 * torch.randn(shape, generator=g)
            return z, *_preprocessing(shape[1], g), _warp(kind, shape, g), dtype

        yield Sample(name, draw)


def _render_backward() -> Iterator[Sample]:
    for name, shape, kind, dtype in _pictures(_DTYPES):

        def draw(
            g: torch.Generator,
            shape: tuple[int, ...] = shape,
            kind: str = kind,
            dtype: torch.dtype = dtype,
        ) -> tuple[Any, ...]:
            z = 1.5 * torch.randn(shape, generator=g)
            # Like a network's input gradient: channels last and in the network's dtype.
            gradient = torch.randn(shape, generator=g).to(dtype).contiguous(memory_format=torch.channels_last)
            color, _, std = _preprocessing(shape[1], g)
            return gradient, z, color, std, _warp(kind, shape, g)

        yield Sample(name, draw)


def _ascend() -> Iterator[Sample]:
    # The parameters of pixels and of half spectra, and a size whose pictures have no alignment.
    shapes = {
        "pixel": ((2, 3, 8, 8), (5, 1, 17, 19)),
        "fourier": ((1, 3, 8, 5, 2), (5, 4, 17, 9, 2), (2, 3, 32, 17, 2)),
    }
    for kind, many in shapes.items():
        for shape, second, decay in itertools.product(
            many, ("coefficient", "band", "image", "none"), (0.0, 0.1)
        ):
            if second == "band" and kind == "pixel":
                continue

            def draw(
                g: torch.Generator,
                shape: tuple[int, ...] = shape,
                second: str = second,
                decay: float = decay,
            ) -> tuple[Any, ...]:
                batch = shape[0]
                p, m, dp = torch.randn(3, *shape, generator=g)
                # Pictures of very different scale reveal a statistic that leaks into a neighbor.
                dp = dp * 10.0 ** -torch.arange(batch).view(-1, *[1] * (len(shape) - 1))
                # Odd bands stay empty, which must not divide by zero.
                band = torch.randint(0, 5, shape[1:], generator=g) * 2 if second == "band" else None
                count = {
                    "coefficient": shape,
                    "band": (batch, 10),
                    "image": (batch,),
                }.get(second)
                v = None if count is None else torch.rand(count, generator=g)
                step = torch.arange(1, batch + 1)
                rate = 0.01 + torch.rand(batch, generator=g)
                schedule = torch.stack((rate, 1 / (1 - 0.5**step), 1 / (1 - 0.99**step)), 1)
                return p, m, v, dp, schedule, band, 0.5, 0.99, EPSILON, decay

            suffix = "-decay" if decay else ""
            yield Sample(f"{kind}-{'x'.join(map(str, shape))}-{second}{suffix}", draw)


def _dot() -> Iterator[Sample]:
    # Vectors, tokens and maps; one chunk of a sum and several, whole and partial.
    shapes = ((3, 5), (2, 7, 33), (2, 13, 5, 7), (3, 64, 23, 9), (1, 128, 12, 12))
    for shape, (name, dtype) in itertools.product(shapes, _DTYPES.items()):

        def draw(
            g: torch.Generator, shape: tuple[int, ...] = shape, dtype: torch.dtype = dtype
        ) -> tuple[Any, ...]:
            h, maps = torch.randn(2, *shape, generator=g).to(dtype)
            kept = torch.channels_last if h.ndim == 4 else torch.contiguous_format
            return h.contiguous(memory_format=kept), maps.contiguous(memory_format=kept)

        yield Sample(f"{'x'.join(map(str, shape))}-{name}", draw)


def _restrain() -> Iterator[Sample]:
    for shape in (*_shapes(), (2, 3, 75, 61)):

        def draw(g: torch.Generator, shape: tuple[int, ...] = shape) -> tuple[Any, ...]:
            z = 6 * torch.randn(shape, generator=g)
            # Pictures of very different scale reveal a statistic that leaks into a neighbor.
            dz = torch.randn(shape, generator=g) * 10.0 ** -torch.arange(len(z)).view(-1, 1, 1, 1)
            return dz, z, _preprocessing(shape[1], g)[0], 0.8, 3.0

        yield Sample("x".join(map(str, shape)), draw)
