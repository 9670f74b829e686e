"""The ops inside a network agree with autograd, and every backend gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.network_samples import network_samples
from support.samples import Sample
from support.tolerance import assert_as_exact, tensors, widened
from torch import Tensor
from torch.nn.functional import max_pool2d

from cnnvis_fast.kernels import cpu, ops, reference
from cnnvis_fast.kernels.cpu import extension
from cnnvis_fast.kernels.geometry import TILES, Geometry
from cnnvis_fast.kernels.layouts import PANEL
from cnnvis_fast.kernels.ops.registration import Op

EXACT = ("rectify", "positive", "rectify_backward", "max_pool")
SUMS = (
    *("max_pool_backward", "input_gradient", "stem_convolution", "stem_gradient", "stem_pool_backward"),
    *("winograd", "winograd_unpooled", "pointwise"),
)
JOINED = ("stem_pool", "winograd_pooled")  # whose places depend on how values were rounded
every_implementation = pytest.mark.usefixtures("kernels")


def run(op: str, *arguments: Any) -> Any:
    return getattr(ops, op)(*arguments)


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("op", "sample"), [pytest.param(op, s, id=f"{op}-{s}") for op in EXACT for s in network_samples(op)]
)
def test_every_implementation_gives_the_bits_of_the_reference(op: str, sample: Sample) -> None:
    found = run(op, *sample.inputs())
    expected = getattr(reference, op)(*sample.inputs())
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
        if one.ndim == 4 and one.is_floating_point():
            assert one.is_contiguous(memory_format=torch.channels_last)


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("op", "sample"), [pytest.param(op, s, id=f"{op}-{s}") for op in SUMS for s in network_samples(op)]
)
def test_sums_are_as_exact_as_their_dtype(op: str, sample: Sample) -> None:
    inputs, plain = sample.inputs(), getattr(reference, op)
    made = tensors(run(op, *inputs))
    for found, low, exact in zip(
        made, tensors(plain(*inputs)), tensors(plain(*map(widened, inputs))), strict=True
    ):
        if found.dtype == torch.uint8:
            assert torch.equal(found, reference.positive(made[0]))
        else:
            assert_as_exact(found, low, exact)
    assert made[0].is_contiguous(memory_format=torch.channels_last)


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", network_samples("stem_gradient"), ids=str)
def test_both_ways_at_once_are_one_after_the_other(sample: Sample) -> None:
    x, weight, bias, maps, geometry = sample.inputs()
    dx, _ = ops.stem_gradient(x, weight, bias, maps, geometry)
    _, mask = ops.stem_convolution(x, weight, bias, geometry, True)
    size = list(x.shape[2:])
    assert torch.equal(dx, ops.input_gradient(maps, mask, weight, geometry, size))


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", network_samples("stem_pool"), ids=str)
def test_a_pooled_stem_is_one_after_the_other(sample: Sample) -> None:
    x, weight, bias, geometry, pooling, rectified = sample.inputs()
    y, place = ops.stem_pool(x, weight, bias, geometry, pooling, rectified)
    (between,) = ops.stem_convolution(x, weight, bias, geometry)
    expected, places = ops.max_pool(between, pooling, rectified)
    assert torch.equal(y, expected)
    assert torch.equal(place, places)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    dy = dy.contiguous(memory_format=torch.channels_last)
    size, middle = list(x.shape[2:]), list(between.shape[2:])
    found = ops.stem_pool_backward(dy, place, weight, geometry, pooling, size)
    unpooled = ops.max_pool_backward(dy, place, pooling, middle)
    assert torch.equal(found, ops.input_gradient(unpooled, None, weight, geometry, size))


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", network_samples("winograd_pooled"), ids=str)
def test_pooled_tiles_are_one_after_the_other(sample: Sample) -> None:
    x, weight, bias, padding, ceil_mode, rectified = sample.inputs()
    y, place = ops.winograd_pooled(x, weight, bias, padding, ceil_mode, rectified)
    (between,) = ops.winograd(x, weight, bias, padding)
    expected, places = ops.max_pool(between, TILES._replace(ceil_mode=ceil_mode), rectified)
    assert torch.equal(y, expected)
    assert torch.equal(place, places)
    assert y.is_contiguous(memory_format=torch.channels_last)


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", network_samples("winograd_unpooled"), ids=str)
def test_tiles_of_a_pooling_s_gradient_are_one_after_the_other(sample: Sample) -> None:
    dy, place, weight, padding, size = sample.inputs()
    (expected,) = ops.winograd(ops.max_pool_backward(dy, place, TILES, size), weight, None, padding)
    assert torch.equal(ops.winograd_unpooled(dy, place, weight, padding, size), expected)


@every_implementation
@pytest.mark.parametrize(
    "sample", [sample for sample in network_samples("winograd") if "masked" in sample.name], ids=str
)
def test_a_mask_of_tiles_is_a_rectifier_s_way_back(sample: Sample) -> None:
    x, weight, bias, padding, rectified, mask = sample.inputs()
    (gated,) = ops.rectify_backward([x], mask, [x.shape[1]])
    (expected,) = ops.winograd(gated, weight, bias, padding, rectified)
    assert torch.equal(ops.winograd(x, weight, bias, padding, rectified, mask)[0], expected)


@pytest.mark.parametrize("sample", network_samples("rectify"), ids=str)
def test_rectify_and_its_way_back_are_autograd_s(sample: Sample) -> None:
    parts, other = (widened(value) for value in sample.inputs())
    inputs = [part.requires_grad_() for part in [*parts, *([] if other is None else [other])]]
    joined = parts[0] + other if other is not None else torch.cat(parts, 1)
    y = torch.relu(joined)
    dy = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(y, inputs, dy)
    with torch.no_grad():
        found, mask = ops.rectify(parts, other)
        channels = [part.shape[1 if part.ndim == 4 else -1] for part in parts]
        gradients = ops.rectify_backward([dy], mask, channels)
    assert torch.equal(found, y)
    assert torch.equal(ops.positive(y.detach()), mask) or len(parts) > 1
    for one, other_gradient in zip(gradients, expected[: len(gradients)], strict=True):
        assert torch.equal(one, other_gradient)


@pytest.mark.parametrize("sample", network_samples("max_pool"), ids=str)
def test_max_pool_and_its_way_back_are_autograd_s(sample: Sample) -> None:
    x, geometry, rectified = map(widened, sample.inputs())
    x.requires_grad_()
    y = max_pool2d(torch.relu(x) if rectified else x, *geometry)
    dy = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad(y, x, dy)
    with torch.no_grad():
        found, place = ops.max_pool(x, geometry, rectified)
        dx = ops.max_pool_backward(dy, place, geometry, list(x.shape[2:]))
    assert torch.equal(found, y)
    torch.testing.assert_close(dx, expected, rtol=0, atol=1e-12)


@every_implementation
def test_what_is_no_number_stays_so_and_passes_its_gradient() -> None:
    x = torch.full((1, 8, 2, 2), float("nan")).contiguous(memory_format=torch.channels_last)
    y, mask = ops.rectify([x], None)
    assert y.isnan().all()
    assert torch.equal(ops.rectify_backward([torch.ones_like(y)], mask, [8])[0], torch.ones_like(y))
    y, place = ops.max_pool(x, TILES, True)
    assert y.isnan().all()
    assert (place == 3).all()  # the last, as PyTorch has it


@every_implementation
@pytest.mark.parametrize("op", EXACT + SUMS + JOINED)
def test_bits_depend_neither_on_threads_nor_on_neighbors(op: str, set_threads: Callable[[int], None]) -> None:
    sample = next(s for s in network_samples(op) if "3x" in s.name.split("-")[0])
    inputs = sample.inputs()

    def picked(pick: slice) -> list[Tensor]:
        def cut(value: Any) -> Any:
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                return [part[pick] for part in value]
            # Weights are no pictures.
            return value[pick] if isinstance(value, Tensor) and len(value) == 3 else value

        return tensors(run(op, *map(cut, inputs)))

    set_threads(1)
    together = picked(slice(None))
    set_threads(3)
    for one, other in zip(picked(slice(None)), together, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(picked(slice(1, 2)), together, strict=True):
        assert torch.equal(one, other[1:2])


@pytest.mark.parametrize("sample", network_samples("winograd"), ids=str)
def test_winograd_is_a_convolution(sample: Sample) -> None:
    x, weight, bias, padding, rectified, mask = map(widened, sample.inputs())
    generator = torch.Generator().manual_seed(1)
    channels, out_channels = x.shape[1], weight.shape[0] * PANEL
    # Whole numbers, whose halves and quarters are exact.
    filters = torch.randint(-9, 10, (out_channels, channels, 3, 3), generator=generator).float()
    turned = ops.winograd_weight(filters, torch.float64)
    found, *_ = reference.winograd(x, turned, bias, padding, rectified, mask)
    if mask is not None:
        (x,) = ops.rectify_backward([x], mask, [channels])
    expected = torch.nn.functional.conv2d(x, filters.double(), bias, padding=padding)
    expected = torch.relu(expected) if rectified else expected
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sample", network_samples("pointwise"), ids=str)
def test_pointwise_is_a_convolution(sample: Sample) -> None:
    x, weight, bias, rectified = map(widened, sample.inputs())
    filters = torch.randn(weight.shape[0] * PANEL, x.shape[1], 1, 1, dtype=torch.float64)
    found, *_ = reference.pointwise(x, ops.pointwise_weight(filters), bias, rectified)
    expected = torch.nn.functional.conv2d(x, filters, bias)
    expected = torch.relu(expected) if rectified else expected
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_implementation
def test_winograd_keeps_what_is_no_number() -> None:
    x = torch.zeros(1, 16, 6, 6, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x[0, 3, 2, 2] = float("nan")
    weight = ops.winograd_weight(torch.ones(16, 16, 3, 3, dtype=torch.bfloat16))
    y, mask = ops.winograd(x, weight, None, [1, 1], True)
    assert y[0, :, 1:4, 1:4].isnan().all()
    assert torch.equal(y[0, :, 5], torch.zeros_like(y[0, :, 5]))
    assert torch.equal(mask, reference.positive(y))


@every_implementation
@pytest.mark.parametrize("op", EXACT + SUMS + JOINED)
def test_opcheck_accepts(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = next(o for o in ops.OPS if o._qualname == f"cnnvis_fast::{op}")
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    inputs, given = network_samples(op)[0].inputs(), []
    with monkeypatch.context() as patch:  # records what the public function hands to the registered op
        patch.setattr(Op, "__call__", lambda _, *arguments: given.extend(arguments))
        run(op, *inputs)
    torch.library.opcheck(registered, tuple(given), test_utils=tests)


def test_a_registered_op_refuses_too_few_windows() -> None:
    three_pairs = [*ONE, *ONE, *ZERO]
    with pytest.raises(ValueError, match=r"^`windows` must "):
        torch.ops.cnnvis_fast.stem_pool(P, S, None, ONE, ZERO, ONE, three_pairs, False, False)


@pytest.mark.skipif(not cpu.levels(), reason="no compiled kernels")
def test_compiled_kernels_have_the_limits_that_are_checked() -> None:
    assert extension.compiled.WIDEST_FILTER == ops.WIDEST_FILTER
    assert extension.compiled.MOST_CHANNELS == ops.FEW_CHANNELS
    assert extension.compiled.PANEL == PANEL


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
