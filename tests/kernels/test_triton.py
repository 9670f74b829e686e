"""The Triton kernels agree with the reference: interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.devices import DEVICES
from support.samples import Sample, sample_inputs
from support.tolerance import assert_as_exact
from torch import Tensor

from cnnvis_fast.kernels import reference, triton

on_gpu = pytest.mark.parametrize("device", DEVICES[1:])

# The gather takes the interpreter a second per picture: a default run has one sample of every size.
QUICK = ("1x4x17x19-affine-float32", "1x1x8x8-affine-bfloat16", "1x3x32x32-affine-float32")


def affordable(op: str) -> list[Any]:
    """Returns the op's samples; those that take long in the interpreter are marked as slow."""
    return [
        pytest.param(sample, marks=pytest.mark.slow if is_slow(op, sample.name) else (), id=sample.name)
        for sample in sample_inputs(op)
    ]


def is_slow(op: str, name: str) -> bool:
    return op == "render_backward" and "affine" in name and name not in QUICK


def wide(*inputs: Any) -> list[Any]:
    """Returns the inputs in float64."""
    return [t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in inputs]


def assert_render(*inputs: Any) -> None:
    found = triton.render(*inputs)
    exact = reference.render(*wide(*inputs[:-1]), torch.float64)
    assert_as_exact(found, reference.render(*inputs), exact)
    assert found.is_contiguous(memory_format=torch.channels_last)


def assert_render_backward(*inputs: Any) -> None:
    found = triton.render_backward(*inputs)
    exact = reference.render_backward(*wide(*inputs))
    assert_as_exact(found, reference.render_backward(*inputs), exact)
    assert found.is_contiguous()


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", affordable("render"))
def test_render_is_the_reference(sample: Sample, device: str) -> None:
    assert_render(*sample.inputs(device=device))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", affordable("render_backward"))
def test_render_backward_is_the_reference(sample: Sample, device: str) -> None:
    assert_render_backward(*sample.inputs(device=device))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("sample", affordable("ascend_"))
def test_ascend_is_the_reference(sample: Sample, device: str) -> None:
    assert_ascend(sample, device)


def assert_ascend(sample: Sample, device: str) -> None:
    found, low, exact = (
        sample.inputs(dtype, device) for dtype in (torch.float32, torch.float32, torch.float64)
    )
    assert_as_exact(triton.ascend_(*found), reference.ascend_(*low), reference.ascend_(*exact))
    for results in zip(found[:3], low[:3], exact[:3], strict=True):
        if results[0] is not None:
            assert_as_exact(*results)


SUMS = [(op, sample) for op in ("dot", "restrain") for sample in sample_inputs(op)]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(("op", "sample"), SUMS, ids=[f"{op}-{sample}" for op, sample in SUMS])
def test_sums_are_the_reference(op: str, sample: Sample, device: str) -> None:
    inputs, plain = sample.inputs(device=device), getattr(reference, op)
    assert_as_exact(getattr(triton, op)(*inputs), plain(*inputs), plain(*wide(*inputs)))


# Rows of the matrices. Pictures are small because some of these visit the whole picture for every pixel.
EXTREME = {
    "identity": [[1, 0, 0], [0, 1, 0]],
    "90 degrees": [[0, -1, 0], [1, 0, 0]],
    "mirror image": [[-1, 0, 0], [0, 1, 0]],
    "half a pixel": [[1, 0, 1 / 14], [0, 1, 1 / 10]],
    "zoom out 3x": [[3, 0, 0.1], [0, 3, 0.2]],
    "zoom in 3x": [[1 / 3, 0, 0], [0, 1 / 3, 0.4]],
    "zoom out 30x": [[30, 0, 0.1], [0, 30, 0.2]],
    "several reflections": [[0.9, 0.3, 5.3], [-0.2, 1.1, -7.7]],
    "thousands of reflections": [[1, 0, 1e4], [0, 1, 0]],
    "shear": [[1, 5, 0], [0, 1, 0]],
    "all from one pixel": [[0, 0, 0.2], [0, 0, 0.3]],
    "all from one column": [[0, 0, 0.3], [0, 1, 0]],
    "singular": [[1, 2, 0.1], [0.5, 1, 0.2]],
    "nearly singular": [[1, 1, 0], [1, 1.000001, 0]],
}
NAN, INF = float("nan"), float("inf")
BROKEN = {
    "huge matrix": [[1e30, 0, 0], [0, 1e30, 0]],
    "huge shift": [[1, 0, 1e30], [0, 1, 0]],
    "infinity": [[INF, 0, 0], [0, 1, 0]],
    "one NaN": [[1, 0, 0], [0, NAN, 0]],
    "NaN": [[NAN] * 3] * 2,
}


def pictures(shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    """g, z, color, mean and std, each amid NaN, so that a read beside them shows."""
    generator = torch.Generator().manual_seed(0)
    channels = shape[1]

    def amid_nan(*shape: int) -> Tensor:
        count = math.prod(shape)
        memory = torch.full((3, count), NAN)
        memory[1] = torch.rand(count, generator=generator) + 0.2
        return memory.to(device)[1].view(shape)

    return (
        amid_nan(*shape),
        amid_nan(*shape),
        amid_nan(channels, channels),
        amid_nan(channels),
        amid_nan(channels),
    )


@pytest.mark.parametrize("rows", EXTREME.values(), ids=EXTREME)
def test_extreme_warps_are_the_reference(rows: list[list[float]], device: str) -> None:
    g, z, color, mean, std = pictures((1, 2, 10, 14), device)
    warp = torch.tensor([rows], dtype=torch.float32, device=device)
    assert_render(z, color, mean, std, warp, torch.float32)
    assert_render_backward(g, z, color, std, warp)


@pytest.mark.parametrize("rows", BROKEN.values(), ids=BROKEN)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_broken_warps_read_nothing_beside_the_picture(rows: list[list[float]], device: str) -> None:
    # Not compared: for these warps grid_sample's own adjoint writes outside its memory on CPUs.
    g, z, color, mean, std = pictures((1, 2, 6, 8), device)
    warp = torch.tensor([rows], dtype=torch.float32, device=device)
    assert triton.render(z, color, mean, std, warp, torch.float32).isfinite().all()
    assert triton.render_backward(g, z, color, std, warp).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 40)], ids=str)
def test_any_size_and_dtype_is_the_reference(size: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    g, z, color, mean, std = pictures((2, 2, *size), device)
    jitter = torch.tensor([[2**62, -(2**62)], [-3, 5]], device=device)
    affine = torch.tensor([[[0.9, 0.2, 0.4], [-0.3, 1.2, -0.2]]], device=device).repeat(2, 1, 1)
    for warp in (None, jitter, affine):
        assert_render(z, color, mean, std, warp, dtype)
        assert_render_backward(g.to(dtype), z, color, std, warp)


@pytest.mark.parametrize("kind", ["none", "jitter", "affine"])
def test_render_backward_takes_any_memory_layout_of_the_gradient(kind: str, device: str) -> None:
    sample = next(s for s in sample_inputs("render_backward") if s.name == f"1x1x8x8-{kind}-float32")
    g, *rest = sample.inputs(device=device)
    expected = triton.render_backward(g, *rest)
    strided = g.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    for same in (g.contiguous(), strided):
        assert torch.equal(triton.render_backward(same, *rest), expected)
    constant = torch.ones((), device=device).expand(g.shape)
    expected = triton.render_backward(constant.contiguous(), *rest)
    assert torch.equal(triton.render_backward(constant, *rest), expected)


def ascent(name: str) -> Sample:
    return next(s for s in sample_inputs("ascend_") if s.name == name)


SECONDS = pytest.mark.parametrize("second", ["coefficient", "band", "image", "none"])


@SECONDS
def test_sums_over_many_chunks_are_the_reference(
    second: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnvis_fast.kernels.triton import _ascend

    monkeypatch.setitem(_ascend.SUMS, "CHUNK", 16)  # 1224 numbers: more chunks than one block adds up
    assert_ascend(ascent(f"fourier-5x4x17x9x2-{second}-decay"), device)


@SECONDS
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30], ids=str)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_image_without_a_finite_gradient_stays_as_it_is(second: str, value: float, device: str) -> None:
    sample = ascent(f"fourier-5x4x17x9x2-{second}-decay")
    inputs, before, healthy = (sample.inputs(device=device) for _ in range(3))
    inputs[3][2].view(-1)[-1] = value
    energy, expected = triton.ascend_(*inputs), triton.ascend_(*healthy)
    others = [0, 1, 3, 4]
    assert energy.isfinite().tolist() == [True, True, False, True, True]
    assert torch.equal(energy[others], expected[others])
    for now, old, moved in zip(inputs[:3], before[:3], healthy[:3], strict=True):
        if now is not None:
            assert torch.equal(now[2], old[2])
            assert torch.equal(now[others], moved[others])


@SECONDS
def test_the_bits_of_an_image_depend_on_nothing_beside_it(second: str, device: str) -> None:
    sample = ascent(f"fourier-5x4x17x9x2-{second}")
    together = sample.inputs(device=device)
    energy = triton.ascend_(*together)
    p, m, v, dp, schedule, *rest = sample.inputs(device=device)
    one = slice(3, 4)
    alone = [p[one].clone(), m[one].clone(), None if v is None else v[one].clone()]
    assert torch.equal(triton.ascend_(*alone, dp[one], schedule[one], *rest), energy[one])
    for found, expected in zip(alone, together[:3], strict=True):
        if found is not None:
            assert torch.equal(found, expected[one])


def test_ascend_takes_any_memory_layout_of_the_gradient(device: str) -> None:
    sample = ascent("pixel-2x3x8x8-image")
    expected, found = sample.inputs(device=device), list(sample.inputs(device=device))
    found[3] = found[3].contiguous(memory_format=torch.channels_last)
    assert torch.equal(triton.ascend_(*found), triton.ascend_(*expected))
    assert torch.equal(found[0], expected[0])


def outcome(op: str, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Returns everything that a call changes or returns."""
    result = getattr(triton, op)(*inputs)
    return [result, *(t for t in inputs[:3] if t is not None)] if op == "ascend_" else [result]


ALL = [
    (op, sample)
    for op in ("render", "render_backward", "ascend_", "dot", "restrain")
    for sample in sample_inputs(op)
]
all_samples = pytest.mark.parametrize(("op", "sample"), ALL, ids=[f"{op}-{sample}" for op, sample in ALL])


@on_gpu
@all_samples
def test_repeated_runs_give_the_same_bits(op: str, sample: Sample, device: str) -> None:
    expected = outcome(op, sample.inputs(device=device))
    for _ in range(5):
        for found, wanted in zip(outcome(op, sample.inputs(device=device)), expected, strict=True):
            assert torch.equal(found, wanted)


@on_gpu
@all_samples
def test_a_graph_captures_every_op(op: str, sample: Sample, device: str) -> None:
    expected = outcome(op, sample.inputs(device=device))  # compiles; a capture must not
    inputs = sample.inputs(device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = outcome(op, inputs)
    graph.replay()
    for found, wanted in zip(captured, expected, strict=True):
        assert torch.equal(found, wanted)
