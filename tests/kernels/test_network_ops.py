"""The ops inside a network agree with autograd, and every backend gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.network_ops import run
from support.network_samples import network_samples
from support.samples import Sample
from support.tolerance import assert_as_exact, tensors, widened
from torch import Tensor
from torch.nn.functional import max_pool2d

from cnnvis_fast.kernels import cpu, ops, reference
from cnnvis_fast.kernels.cpu import extension
from cnnvis_fast.kernels.geometry import TILES
from cnnvis_fast.kernels.layouts import PANEL
from cnnvis_fast.kernels.ops.registration import Op

EXACT = ("rectify", "positive", "rectify_backward", "max_pool")
SUMS = (
    *("max_pool_backward", "input_gradient", "stem_convolution", "stem_gradient", "stem_pool_backward"),
    *("winograd", "winograd_unpooled", "pointwise"),
)
JOINED = ("stem_pool", "winograd_pooled")  # whose places depend on how values were rounded
every_implementation = pytest.mark.usefixtures("kernels")


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


@pytest.mark.skipif(not cpu.levels(), reason="no compiled kernels")
def test_compiled_kernels_have_the_limits_that_are_checked() -> None:
    assert extension.compiled.WIDEST_FILTER == ops.WIDEST_FILTER
    assert extension.compiled.MOST_CHANNELS == ops.FEW_CHANNELS
    assert extension.compiled.PANEL == PANEL
