"""The ops inside a network refuse bad arguments by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.network_ops import run

from cnnvis_fast.kernels.geometry import TILES, Geometry

X, M = torch.zeros(2, 8, 6, 6), torch.zeros(2, 6, 6, 1, dtype=torch.uint8)
PLACE = torch.zeros(2, 8, 3, 3, dtype=torch.uint8)
W = torch.zeros(8, 1, 1, 1)
TWO, ONE, ZERO = (2, 2), (1, 1), (0, 0)
MANY, WIDE = W.expand(8, 5, 1, 1), W.expand(8, 1, 1, 33)
P, S, G = torch.zeros(2, 3, 6, 6), torch.zeros(16, 3, 3, 3), torch.zeros(2, 16, 4, 4)
Y = torch.zeros(2, 16, 6, 6, dtype=torch.bfloat16)
U = torch.zeros(1, 16, 8, 16, 2, dtype=torch.bfloat16)
V = torch.zeros(1, 8, 16, 2, dtype=torch.bfloat16)
POINT, STEM, WIDE_STEM = (Geometry(kernel, ONE, ZERO, ONE) for kernel in (ONE, (3, 3), (1, 33)))
LARGE_POOL, LARGE_STEM = (Geometry((n, n), ONE, ZERO, ONE) for n in (16, 7))
NEGATIVE, DILATED = Geometry(ONE, ONE, (-1, 0), ONE), Geometry((3, 3), ONE, ZERO, TWO)
POOL, PLACES = Geometry(ONE, ONE, ZERO, ONE), torch.zeros(2, 16, 4, 4, dtype=torch.uint8)
BAD: dict[str, tuple[type[Exception], str, str, tuple[Any, ...]]] = {
    "no parts": (ValueError, "parts", "rectify", ([], None)),
    "parts of two sizes": (ValueError, "parts", "rectify", ([X, X[:, :, :3]], None)),
    "parts of two dtypes": (TypeError, "parts", "rectify", ([X, X.double()], None)),
    "an empty part": (ValueError, "parts", "rectify", ([X[:0]], None)),
    "another term of another shape": (ValueError, "other", "rectify", ([X], X[:1])),
    "another term for two parts": (ValueError, "parts", "rectify", ([X, X], X)),
    "whole numbers": (TypeError, "y", "positive", (X.long(),)),
    "no gradients": (ValueError, "gradients", "rectify_backward", ([], M, [8])),
    "three gradients": (ValueError, "gradients", "rectify_backward", ([X, X, X], M, [8])),
    "gradients of two shapes": (ValueError, "gradients", "rectify_backward", ([X, X[:1]], M, [8])),
    "channels that do not add up": (ValueError, "channels", "rectify_backward", ([X], M, [4])),
    "a mask of another size": (ValueError, "mask", "rectify_backward", ([X], M[:1], [8])),
    "a mask of bits as bools": (TypeError, "mask", "rectify_backward", ([X], M.bool(), [8])),
    "one image without a batch": (ValueError, "x", "max_pool", (X[0], TILES)),
    "a window of too many positions": (
        ValueError,
        "kernel",
        "max_pool",
        (X, LARGE_POOL),
    ),
    "a window larger than the picture": (ValueError, "x", "max_pool", (X, Geometry((7, 7), TWO, ZERO, ONE))),
    "more padding than half a window": (ValueError, "padding", "max_pool", (X, Geometry(TWO, TWO, TWO, ONE))),
    "a stride of nothing": (ValueError, "stride", "max_pool", (X, Geometry(TWO, ZERO, ZERO, ONE))),
    "steps over the picture": (ValueError, "x", "max_pool", (X[..., :1], Geometry(TWO, ONE, ONE, TWO, True))),
    "a size that is too small": (
        ValueError,
        "size",
        "max_pool_backward",
        (X, X.byte(), TILES, [2, 2]),
    ),
    "places of another shape": (
        ValueError,
        "place",
        "max_pool_backward",
        (X, PLACE, TILES, [6, 6]),
    ),
    "places as int64": (
        TypeError,
        "place",
        "max_pool_backward",
        (X[:, :, :3, :3], PLACE.long(), TILES, [6, 6]),
    ),
    "a gradient of other channels": (
        ValueError,
        "weight",
        "input_gradient",
        (X, None, W[:7], POINT, [6, 6]),
    ),
    "a weight of another dtype": (
        TypeError,
        "weight",
        "input_gradient",
        (X, None, W.double(), POINT, [6, 6]),
    ),
    "many channels": (ValueError, "weight", "input_gradient", (X, None, MANY, POINT, [6, 6])),
    "a wide filter": (ValueError, "weight", "input_gradient", (X, None, WIDE, WIDE_STEM, [6, 38])),
    "a size that does not fit": (ValueError, "size", "input_gradient", (X, None, W, POINT, [6, 7])),
    "negative padding": (
        ValueError,
        "padding",
        "input_gradient",
        (X, None, W, NEGATIVE, [6, 6]),
    ),
    "a mask of other channels": (ValueError, "mask", "input_gradient", (X, M[..., :0], W, POINT, [6, 6])),
    "a mask that is no bytes": (TypeError, "mask", "input_gradient", (X, M.int(), W, POINT, [6, 6])),
    "a stem for other channels": (ValueError, "weight", "stem_convolution", (P[:, :2], S, None, STEM)),
    "a stem of 8 filters": (ValueError, "weight", "stem_convolution", (P, S[:8], None, STEM)),
    "a stem with a bias too long": (ValueError, "bias", "stem_convolution", (P, S, torch.zeros(17), STEM)),
    "a stem of dilated columns": (
        ValueError,
        "dilation",
        "stem_convolution",
        (P, S, None, DILATED),
    ),
    "a stem larger than the picture": (
        ValueError,
        "x",
        "stem_convolution",
        (P, torch.zeros(16, 3, 7, 7), None, LARGE_STEM),
    ),
    "filters of another size": (
        ValueError,
        "weight",
        "stem_convolution",
        (P, S, None, POINT),
    ),
    "maps of another size": (ValueError, "maps", "stem_gradient", (P, S, None, G[..., :3], STEM)),
    "maps in float64": (TypeError, "maps", "stem_gradient", (P, S, None, G.double(), STEM)),
    "windows that miss the picture": (
        ValueError,
        "padding",
        "stem_gradient",
        (P, S[:, :, :1], None, torch.zeros(2, 16, 8, 4), Geometry((1, 3), ONE, (1, 0), ONE)),
    ),
    "a window that does not fit": (
        ValueError,
        "x",
        "stem_pool",
        (P, S, None, STEM, Geometry((5, 5), ONE, ZERO, ONE)),
    ),
    "a pooled stem of 8 filters": (ValueError, "weight", "stem_pool", (P, S[:8], None, STEM, POOL)),
    "places of another size": (
        ValueError,
        "place",
        "stem_pool_backward",
        (G, PLACES[..., :2], S, STEM, POOL, [6, 6]),
    ),
    "filters that write other channels": (
        ValueError,
        "weight",
        "stem_pool_backward",
        (G, PLACES, S[:8], STEM, POOL, [6, 6]),
    ),
    "filters of another dtype": (
        TypeError,
        "weight",
        "stem_pool_backward",
        (G, PLACES, S.bfloat16(), STEM, POOL, [6, 6]),
    ),
    "a size that holds no filter": (
        ValueError,
        "size",
        "stem_pool_backward",
        (G, PLACES, S, STEM, POOL, [2, 6]),
    ),
    "a size that is not pooled to that": (
        ValueError,
        "size",
        "stem_pool_backward",
        (G, PLACES, S, STEM, POOL, [6, 8]),
    ),
    "one picture without a batch": (ValueError, "x", "winograd", (Y[0], U, None, ONE)),
    "maps in float32": (TypeError, "x", "winograd", (Y.float(), U, None, ONE)),
    "filters in float32": (TypeError, "weight", "winograd", (Y, U.float(), None, ONE)),
    "filters for other channels": (ValueError, "weight", "winograd", (Y.repeat(1, 2, 1, 1), U, None, ONE)),
    "a bias of other channels": (ValueError, "bias", "winograd", (Y, U, torch.zeros(15), ONE)),
    "a bias of whole numbers": (TypeError, "bias", "winograd", (Y, U, torch.zeros(16).long(), ONE)),
    "three rows of zeros": (ValueError, "padding", "winograd", (Y, U, None, (1, 3))),
    "less than a filter": (ValueError, "x", "winograd", (Y[:, :, :2], U, None, ZERO)),
    "a mask of fewer channels": (ValueError, "mask", "winograd", (Y, U, None, ONE, False, Y.byte()[..., 0])),
    "tiles smaller than a window": (ValueError, "x", "winograd_pooled", (Y[:, :, :3], U, None, ZERO)),
    "places of floats": (TypeError, "place", "winograd_unpooled", (Y, Y, U, ONE, [12, 12])),
    "a size that is not that of the windows": (
        ValueError,
        "size",
        "winograd_unpooled",
        (Y, Y.byte(), U, ONE, [12, 14]),
    ),
    "vectors": (ValueError, "x", "pointwise", (Y[0], V, None)),
    "products in float32": (TypeError, "x", "pointwise", (Y.float(), V, None)),
    "products with filters in float32": (TypeError, "weight", "pointwise", (Y, V.float(), None)),
    "products of other channels": (ValueError, "weight", "pointwise", (Y.repeat(1, 2, 1, 1), V, None)),
    "products with a bias of other channels": (ValueError, "bias", "pointwise", (Y, V, torch.zeros(15))),
    "filters of 3 x 1": (ValueError, "weight", "pointwise_weight", (torch.zeros(16, 16, 3, 1),)),
    "filters of 8 x 1": (ValueError, "weight", "pointwise_weight", (torch.zeros(8, 16, 1, 1),)),
    "filters of 5 x 5": (ValueError, "weight", "winograd_weight", (torch.zeros(16, 16, 5, 5),)),
    "filters of 8 channels": (ValueError, "weight", "winograd_weight", (torch.zeros(16, 8, 3, 3),)),
}


@pytest.mark.parametrize(("error", "name", "op", "arguments"), BAD.values(), ids=BAD)
def test_refuses(error: type[Exception], name: str, op: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=f"^`{name}` must "):
        run(op, *arguments)


def test_a_registered_op_refuses_too_few_windows() -> None:
    three_pairs = [*ONE, *ONE, *ZERO]
    with pytest.raises(ValueError, match=r"^`windows` must "):
        torch.ops.cnnvis_fast.stem_pool(P, S, None, ONE, ZERO, ONE, three_pairs, False, False)
