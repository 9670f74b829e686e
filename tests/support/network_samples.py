"""Inputs of the ops inside a network; `samples` has those of the other ops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cnnvis_fast.kernels.geometry import TILES, Geometry
from support.samples import Sample

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Channels of each part: whole and partial bytes, one vector and several.
_PARTS = ((1,), (8,), (13,), (8, 16), (5, 3, 24))
_SHAPES = ((2, 7, 3), (1, 1, 1), (3, 4, 9))
WINDOWS = {
    "3x3 over 2": Geometry((3, 3), (2, 2), (0, 0), (1, 1)),
    "3x3 over 2, beyond the end": Geometry((3, 3), (2, 2), (0, 0), (1, 1), True),
    "3x3 over 2, padded": Geometry((3, 3), (2, 2), (1, 1), (1, 1), True),
    "2x2": Geometry((2, 2), (2, 2), (0, 0), (1, 1)),
    "3x3 over 1, padded": Geometry((3, 3), (1, 1), (1, 1), (1, 1)),
    "2x3 over 3x1, dilated": Geometry((2, 3), (3, 1), (1, 0), (2, 3), True),
    "3x3 over 1, padded and dilated": Geometry((3, 3), (1, 1), (1, 1), (2, 2)),
    "1x1 over 2": Geometry((1, 1), (2, 2), (0, 0), (1, 1)),
}
_GEOMETRIES = [
    Geometry((7, 7), (2, 2), (0, 0), (1, 1)),
    Geometry((3, 3), (1, 1), (1, 1), (1, 1)),
    Geometry((5, 5), (4, 4), (2, 2), (1, 1)),
    Geometry((3, 3), (2, 2), (3, 3), (2, 2)),
    Geometry((1, 1), (3, 3), (0, 0), (1, 1)),
    Geometry((4, 3), (3, 2), (1, 5), (1, 4)),
]
_MAPS = ((2, 11, 9, 12), (1, 8, 7, 7), (3, 17, 8, 10))


def network_samples(op: str) -> list[Sample]:
    """Returns samples of an op: "rectify", "positive", "rectify_backward", "max_pool" and so on.

    Converted to float64 they hold the same numbers, including those of bfloat16 samples.
    """
    return list(globals()[f"_{op}"]())


def _name(geometry: Geometry) -> str:
    return "-".join(str([*pair]) for pair in geometry.pairs)


def _maps(shape: tuple[int, ...], dtype: torch.dtype, g: torch.Generator) -> Tensor:
    """Returns channels-last values on a grid, so that some are zero and some are equal."""
    values = (torch.randn(shape, generator=g) * 4).round() / 4
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def _cases(many: Any) -> Iterator[tuple[Any, str, torch.dtype]]:
    for case, (name, dtype) in itertools.product(many, _DTYPES.items()):
        yield case, name, dtype


def _rectify() -> Iterator[Sample]:
    for (parts, (b, h, w)), name, dtype in _cases(itertools.product(_PARTS, _SHAPES)):

        def draw(g: torch.Generator, parts=parts, b=b, h=h, w=w, dtype=dtype, add=False) -> tuple[Any, ...]:
            made = [_maps((b, count, h, w), dtype, g) for count in parts]
            return made, _maps((b, parts[0], h, w), dtype, g) if add else None

        label = f"{'+'.join(map(str, parts))} of {b}x{h}x{w}-{name}"
        yield Sample(label, draw)
        if len(parts) == 1:
            yield Sample(f"{label}-sum", lambda g, draw=draw: draw(g, add=True))
    for dtype in _DTYPES.values():
        yield Sample(
            f"vectors-{dtype}", lambda g, dtype=dtype: ([torch.randn(5, 13, generator=g).to(dtype)], None)
        )
        yield Sample(
            f"tokens-{dtype}", lambda g, dtype=dtype: ([torch.randn(2, 3, 9, generator=g).to(dtype)], None)
        )


def _positive() -> Iterator[Sample]:
    for sample in _rectify():
        yield Sample(sample.name, lambda g, sample=sample: (sample.draw(g)[0][0],))


def _rectify_backward() -> Iterator[Sample]:
    for (parts, (b, h, w), readers), name, dtype in _cases(itertools.product(_PARTS, _SHAPES, (1, 2))):

        def draw(
            g: torch.Generator, parts=parts, b=b, h=h, w=w, readers=readers, dtype=dtype
        ) -> tuple[Any, ...]:
            # A slice of a wider tensor, like the gradient of a concatenation.
            wide = [_maps((b, sum(parts) + 8, h, w), dtype, g) for _ in range(readers)]
            count = sum(-(-channels // 8) for channels in parts)
            mask = torch.randint(0, 256, (b, h, w, count), generator=g).to(torch.uint8)
            return [gradient[:, 3 : 3 + sum(parts)] for gradient in wide], mask, list(parts)

        yield Sample(f"{'+'.join(map(str, parts))} of {b}x{h}x{w}-{name}-{readers}", draw)


def _max_pool() -> Iterator[Sample]:
    for (shape, kind, rectified), name, dtype in _cases(itertools.product(_MAPS, WINDOWS, (False, True))):

        def draw(
            g: torch.Generator, shape=shape, kind=kind, rectified=rectified, dtype=dtype
        ) -> tuple[Any, ...]:
            return _maps(shape, dtype, g), WINDOWS[kind], rectified

        yield Sample(f"{'x'.join(map(str, shape))}-{kind}-{name}{'-rectified' * rectified}", draw)


def _max_pool_backward() -> Iterator[Sample]:
    from cnnvis_fast.kernels import reference

    for sample in _max_pool():

        def draw(g: torch.Generator, sample=sample) -> tuple[Any, ...]:
            x, geometry, rectified = sample.draw(g)
            y, place = reference.max_pool(x, geometry, rectified)
            dy = torch.randn(y.shape, generator=g).to(x.dtype).contiguous(memory_format=torch.channels_last)
            return dy, place, geometry, list(x.shape[2:])

        yield Sample(sample.name, draw)


def _input_gradient() -> Iterator[Sample]:
    # Channels, and filters with stride, padding and dilation: equal down and right, except the last.
    many = itertools.product(((1, 2), (3, 8), (4, 13)), _GEOMETRIES, (False, True))
    for (pair, geometry, masked), name, dtype in _cases(many):

        def draw(
            g: torch.Generator,
            pair: tuple[int, int] = pair,
            geometry: Geometry = geometry,
            dtype: torch.dtype = dtype,
            masked: bool = masked,
        ) -> tuple[Any, ...]:
            size = [19, 61]
            weight = torch.randn(pair[1], pair[0], *geometry.kernel, generator=g).to(dtype)
            out = geometry.output_size(size)
            dy = torch.randn(3, pair[1], *out, generator=g).to(dtype)
            dy = dy.contiguous(memory_format=torch.channels_last)
            mask = torch.randint(0, 256, (3, *out, -(-pair[1] // 8)), generator=g).to(torch.uint8)
            return dy, mask if masked else None, weight, geometry, size

        kind = f"{name}{'-masked' * masked}"
        yield Sample(f"3x{pair[1]} from {pair[0]}-{_name(geometry)}-{kind}", draw)


def _stem_convolution() -> Iterator[Sample]:
    geometries = [geometry._replace(dilation=(geometry.dilation[0], 1)) for geometry in _GEOMETRIES]
    many = itertools.product(((1, 16), (3, 48), (4, 32)), geometries, (False, True))
    for (pair, geometry, rectified), name, dtype in _cases(many):

        def draw(
            g: torch.Generator,
            pair: tuple[int, int] = pair,
            geometry: Geometry = geometry,
            dtype: torch.dtype = dtype,
            rectified: bool = rectified,
        ) -> tuple[Any, ...]:
            x = torch.randn(3, pair[0], 19, 61, generator=g).to(dtype)
            weight = torch.randn(pair[1], pair[0], *geometry.kernel, generator=g).to(dtype)
            bias = torch.randn(pair[1], generator=g).to(dtype) if rectified else None
            return x.contiguous(memory_format=torch.channels_last), weight, bias, geometry, rectified

        kind = f"{name}{'-rectified' * rectified}"
        yield Sample(f"3x{pair[0]} to {pair[1]}-{_name(geometry)}-{kind}", draw)


def _stem_gradient() -> Iterator[Sample]:
    """Yields the samples of `stem_convolution` with maps for its output."""
    for sample in _stem_convolution():

        def draw(g: torch.Generator, sample: Sample = sample) -> tuple[Any, ...]:
            x, weight, bias, geometry, _ = sample.draw(g)
            maps = torch.randn(3, len(weight), *geometry.output_size(x.shape[2:]), generator=g)
            maps = maps.to(x.dtype).contiguous(memory_format=torch.channels_last)
            return x, weight, bias, maps, geometry

        yield Sample(sample.name, draw)


def _stem_pool() -> Iterator[Sample]:
    """Yields the samples of `stem_convolution`, each with a pooling behind it."""
    kinds = itertools.cycle(WINDOWS)
    for sample in _stem_convolution():
        pooling = WINDOWS[kind := next(kinds)]

        def draw(g: torch.Generator, sample: Sample = sample, pooling: Geometry = pooling) -> tuple[Any, ...]:
            *convolution, rectified = sample.draw(g)
            return *convolution, pooling, rectified

        yield Sample(f"{sample.name}-{kind}", draw)


def _stem_pool_backward() -> Iterator[Sample]:
    from cnnvis_fast.kernels import reference

    for sample in _stem_pool():

        def draw(g: torch.Generator, sample: Sample = sample) -> tuple[Any, ...]:
            x, weight, bias, geometry, pooling, rectified = sample.draw(g)
            y, place = reference.stem_pool(x, weight, bias, geometry, pooling, rectified)
            dy = torch.randn(y.shape, generator=g).to(x.dtype).contiguous(memory_format=torch.channels_last)
            return dy, place, weight, geometry, pooling, list(x.shape[2:])

        yield Sample(sample.name, draw)


# Input and output channels, size, padding: whole and partial tiles, filters beyond the edges.
_TILED = (
    (16, 16, (7, 9), [1, 1]),
    (32, 48, (8, 30), [1, 1]),
    (48, 32, (5, 6), [0, 2]),
    (16, 64, (3, 1), [2, 1]),
    (80, 16, (3, 3), [0, 0]),
)


def _winograd() -> Iterator[Sample]:
    for (channels, out_channels, size, padding), kind in itertools.product(
        _TILED, ("plain", "rectified", "masked")
    ):

        def draw(
            g: torch.Generator,
            channels: int = channels,
            out_channels: int = out_channels,
            size: tuple[int, int] = size,
            padding: list[int] = padding,
            kind: str = kind,
        ) -> tuple[Any, ...]:
            from cnnvis_fast.kernels.ops.winograd import winograd_weight

            x = torch.randn(3, channels, *size, generator=g).bfloat16()
            weight = torch.randn(out_channels, channels, 3, 3, generator=g).bfloat16()
            bias = torch.randn(out_channels, generator=g).bfloat16() if kind == "rectified" else None
            x = x.contiguous(memory_format=torch.channels_last)
            mask = torch.randint(0, 256, (3, *size, channels // 8), generator=g).to(torch.uint8)
            masks = mask if kind == "masked" else None
            return x, winograd_weight(weight), bias, padding, kind == "rectified", masks

        name = f"3x{channels} to {out_channels}-{size}-{padding}-{kind}"
        yield Sample(name, draw)


def _winograd_pooled() -> Iterator[Sample]:
    """Yields the samples of `winograd` whose output holds at least one window."""
    for sample in _winograd():
        if "masked" in sample.name or "(3, 3)" in sample.name:
            continue
        for ceil_mode in (False, True)[int("(3, 1)" in sample.name) :]:

            def draw(
                g: torch.Generator, sample: Sample = sample, ceil_mode: bool = ceil_mode
            ) -> tuple[Any, ...]:
                x, weight, bias, padding, rectified, _ = sample.draw(g)
                return x, weight, bias, padding, ceil_mode, rectified

            yield Sample(f"{sample.name}-{'ceil' if ceil_mode else 'floor'}", draw)


def _winograd_unpooled() -> Iterator[Sample]:
    from cnnvis_fast.kernels import reference

    for sample in _winograd():
        if "plain" not in sample.name or "(3, 1)" in sample.name:
            continue
        for ceil_mode in (False, True):

            def draw(
                g: torch.Generator, sample: Sample = sample, ceil_mode: bool = ceil_mode
            ) -> tuple[Any, ...]:
                x, weight, _, padding, *_ = sample.draw(g)
                dy, place = reference.max_pool(x, TILES._replace(ceil_mode=ceil_mode), True)
                return dy, place, weight, padding, list(x.shape[2:])

            yield Sample(f"{sample.name}-{'ceil' if ceil_mode else 'floor'}", draw)


def _pointwise() -> Iterator[Sample]:
    # Input and output channels, size: whole and partial blocks of pixels, one panel of channels and several.
    cases = ((16, 16, (7, 2)), (32, 48, (5, 9)), (48, 32, (1, 1)), (96, 64, (14, 14)), (1024, 16, (11, 20)))
    for (channels, out_channels, size), kind in itertools.product(cases, ("plain", "rectified")):

        def draw(
            g: torch.Generator,
            channels: int = channels,
            out_channels: int = out_channels,
            size: tuple[int, int] = size,
            rectified: bool = kind == "rectified",
        ) -> tuple[Any, ...]:
            from cnnvis_fast.kernels.ops.pointwise import pointwise_weight

            x = torch.randn(3, channels, *size, generator=g).bfloat16()
            weight = torch.randn(out_channels, channels, 1, 1, generator=g).bfloat16()
            bias = torch.randn(out_channels, generator=g) if rectified else None
            x = x.contiguous(memory_format=torch.channels_last)
            return x, pointwise_weight(weight), bias, rectified

        yield Sample(f"3x{channels} to {out_channels}-{size}-{kind}", draw)
