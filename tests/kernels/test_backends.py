"""The backend that runs is the best available or the one requested, and a job records which."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.samples import sample_inputs
from support.tolerance import assert_as_exact
from torch import Tensor

import cnnvis_fast as cv
from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.config import configure
from cnnvis_fast.kernels import backends, cpu, ops, reference
from cnnvis_fast.networks.preprocessing import Source

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LEVELS = [f"cpu-{level}" for level in cpu.levels()]
compiled = pytest.mark.parametrize("name", LEVELS)
every_implementation = pytest.mark.usefixtures("kernels")
MATRICES = {
    "all pixels from one": [[0.0, 0.0, 0.1], [0.0, 0.0, -0.2]],
    "a line": [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]],
    "three times smaller": [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]],
    "a quarter turn": [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]],
    "mirrored": [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "many pictures away": [[1.0, 0.1, 9.3], [0.0, 0.9, -17.7]],
    "enlarged": [[0.05, 0.0, 0.9], [0.0, 0.05, -0.9]],
}


def images(batch: int, height: int, width: int, channels: int = 3) -> tuple[Tensor, ...]:
    """Returns z, color, mean and std as `render` takes them."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, channels, height, width, generator=generator)
    color = torch.randn(channels, channels, generator=generator)
    return z, color, torch.full((channels,), 0.4), torch.full((channels,), 0.25)


def slots(warp: str, batch: int) -> Tensor | None:
    """Returns a warp for every image."""
    if warp == "none":
        return None
    if warp == "jitter":
        return torch.arange(2 * batch).view(batch, 2) * 7 - 20
    turn = torch.linspace(-0.4, 0.4, batch)
    rows = (torch.stack((turn.cos(), -turn.sin(), turn), 1), torch.stack((turn.sin(), turn.cos(), -turn), 1))
    return torch.stack(rows, 1)


@compiled
def test_the_one_asked_for_runs(name: str) -> None:
    z, color, mean, std = images(1, 9, 11)
    with backends.using(name):
        found = ops.render(z, color, mean, std, None, torch.float32)
    made = cpu.render(name.removeprefix("cpu-"), z, color, mean, std, None, torch.float32)
    assert torch.equal(found, made)


def test_auto_is_the_widest_set_of_this_cpu() -> None:
    assert backends.automatic(CPU) == [*LEVELS, "reference"][0]
    assert (backends.why_reference(CPU) is None) == bool(LEVELS)


def test_auto_takes_what_the_compiled_kernels_do_not() -> None:
    assert backends.automatic(CPU, torch.float64) == "reference"
    assert backends.automatic(CPU, channels=5) == "reference"
    z, color, mean, std = images(1, 4, 4, channels=5)
    expected = reference.render(z, color, mean, std, None, torch.float32)
    assert torch.equal(ops.render(z, color, mean, std, None, torch.float32), expected)


@compiled
def test_the_one_asked_for_says_what_it_cannot_take(name: str) -> None:
    with backends.using(name):
        with pytest.raises(RuntimeError, match="up to 4 channels, got 5"):
            ops.render(*images(1, 4, 4, channels=5), None, torch.float32)
        with pytest.raises(RuntimeError, match=r"float32 parameters, got torch\.float64"):
            ops.render(*[t.double() for t in images(1, 4, 4)], None, torch.float32)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of auto, reference"), backends.using("fast"):
        pass
    with pytest.raises(cv.InputError, match="`kernels` must be one of auto, reference"):
        configure(kernels="fast")


def test_what_was_asked_for_ends_with_its_block() -> None:
    with pytest.raises(KeyError), backends.using("reference"):
        raise KeyError
    assert backends.kernels_for(torch.zeros(1)).render != reference.render or not LEVELS


def test_kernels_of_another_device_are_an_error_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    source = Source("", "", (0.0,) * 3, (1.0,) * 3, 32)
    with pytest.raises(cv.InputError, match="need a CUDA device"):
        resolve_config(configure(kernels="triton", device="cpu"), source)
    assert "for the CPU, not for cuda" in str(backends.why_not("cpu-baseline", GPU))


def test_a_job_records_what_auto_meant(tmp_path: Path) -> None:
    options = {"steps": 1, "size": 32, "progress": False, "device": "cpu"}
    cv.atlas("texturenet", ["conv1"], out=tmp_path / "auto", filters=[0], **options)
    assert f'"kernels": "{backends.automatic(CPU)}"' in (tmp_path / "auto" / "job.json").read_text()
    with pytest.raises(cv.InputError, match="kernels"):
        cv.atlas(
            "texturenet", ["conv1"], out=tmp_path / "auto", filters=[1], kernels="reference", **options
        ) if LEVELS else pytest.skip("needs compiled kernels")


def test_pictures_of_more_channels_say_that_plain_pytorch_runs() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(5, 4, 3))
    options = {"mean": (0.5,) * 5, "std": (0.2,) * 5, "steps": 1, "size": 16, "progress": False}
    with pytest.warns(UserWarning, match="plain PyTorch runs the loop's operations"):
        cv.maximize(network, "0", device="cpu", **options)


def test_without_the_extension_plain_pytorch_runs_and_says_so() -> None:
    code = """
import sys
sys.modules["cnnvis_fast.kernels.cpu._cpu"] = None
import cnnvis_fast as cv
pictures = cv.maximize("texturenet", "conv1", [0], steps=1, size=32, device="cpu", progress=False)
print(len(pictures.images))
cv.maximize("texturenet", "conv1", [0], kernels="cpu-baseline", device="cpu", progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
    assert "plain PyTorch runs the loop's operations, more slowly: the compiled CPU kernels" in done.stderr
    assert "InputError: the compiled CPU kernels are missing" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(not LEVELS, reason="needs the compiled kernels")
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_the_threads_are_those_of_torch() -> None:
    # A second OpenMP library in the process would have a second set of threads, which spin beside torch's.
    files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    libraries = {file for file in files if Path(file).name.startswith(("libgomp", "libomp", "libiomp"))}
    assert len(libraries) == 1
    assert str(cpu.build_info()["openmp"]) in {*libraries, *(str(Path(file).resolve()) for file in libraries)}


@every_implementation
@pytest.mark.parametrize("shape", [(23, 37), (64, 64), (1, 33), (33, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("warp", ["none", "jitter", "affine"])
def test_the_bits_of_a_picture_depend_on_nothing_beside_it(
    kernels: str, warp: str, shape: tuple[int, int], set_threads: Callable[[int], None]
) -> None:
    if kernels == "reference":
        pytest.skip("plain PyTorch does not promise it")
    z, color, mean, std = images(6, *shape)
    g = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    every = slots(warp, 6)

    def bits(chosen: list[int], threads: int) -> tuple[Tensor, Tensor]:
        set_threads(threads)
        w = None if every is None else every[chosen]
        x = ops.render(z[chosen], color, mean, std, w, torch.bfloat16)
        return x, ops.render_backward(g[chosen], z[chosen], color, std, w)

    expected = bits([2], 1)
    for chosen in ([2], [2, 0, 5], [0, 1, 3, 4, 2], [5, 4, 3, 2, 1, 0]):
        for threads in (1, 2, 3, 5):
            found = bits(chosen, threads)
            for now, wanted in zip(found, expected, strict=True):
                assert torch.equal(now[chosen.index(2)], wanted[0]), (chosen, threads)


@pytest.mark.parametrize("size", [64, 75, 96])
def test_pictures_are_the_same_on_one_thread_and_on_two(
    size: int, set_threads: Callable[[int], None]
) -> None:
    results = []
    for threads in (1, 2):
        set_threads(threads)
        options = {"steps": 24, "dtype": "bfloat16", "device": "cpu", "progress": False}
        pictures = cv.maximize("texturenet", "conv5", [0, 5, 9], size=size, **options)
        results.append((pictures.images, pictures.history))
    assert all(map(torch.equal, *results))


@every_implementation
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("shape", [(13, 21), (1, 7), (7, 1), (1, 1), (40, 40)], ids=str)
def test_warps_far_from_the_identity_are_exact(matrix: list[list[float]], shape: tuple[int, int]) -> None:
    z, color, mean, std = images(8, *shape)
    # Some pixels further each: the roundings of a single position may happen to vanish in the plain code.
    warp = torch.tensor([matrix] * 8)
    warp[:, :, 2] += 0.037 * torch.arange(8)[:, None]
    g = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))

    def wide(*tensors: Tensor) -> list[Tensor]:
        return [t.double() for t in tensors]

    low = reference.render(z, color, mean, std, warp, torch.float32)
    exact = reference.render(*wide(z, color, mean, std, warp), torch.float64)
    assert_as_exact(ops.render(z, color, mean, std, warp, torch.float32), low, exact)
    low = reference.render_backward(g, z, color, std, warp)
    exact = reference.render_backward(*wide(g, z, color, std, warp))
    assert_as_exact(ops.render_backward(g, z, color, std, warp), low, exact)


@every_implementation
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_a_warp_that_is_no_place_reads_and_writes_inside_the_picture(value: float) -> None:
    z, color, mean, std = images(2, 19, 23)
    warp = slots("affine", 2)
    assert warp is not None
    expected = ops.render(z, color, mean, std, warp, torch.float32)[0]
    for row in range(2):
        for column in range(3):
            wild = warp.clone()
            wild[1, row, column] = value
            x = ops.render(z, color, mean, std, wild, torch.float32)
            ops.render_backward(x, z, color, std, wild)
            assert torch.allclose(x[0], expected, atol=1e-4)
            assert x.isfinite().all()


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_not_a_number_stays_so(name: str, dtype: torch.dtype) -> None:
    z, color, mean, std = images(1, 5, 7)
    z[0, 1, 2, 3] = float("nan")
    with backends.using(name):
        x = ops.render(z, color, mean, std, None, dtype)
        dz = ops.render_backward(torch.ones_like(x), z, color, std, None)
    for found in (x, dz):
        assert found.isnan().nonzero().tolist() == [[0, channel, 2, 3] for channel in range(3)]


@compiled
def test_large_numbers_saturate(name: str) -> None:
    z = torch.tensor([-1e30, -200.0, -88.0, 88.0, 200.0, 1e30]).view(1, 1, 1, 6)
    one = torch.ones(1)
    with backends.using(name):
        x = ops.render(z, torch.eye(1), 0 * one, one, None, torch.float32).flatten()
        dz = ops.render_backward(torch.ones(1, 1, 1, 6), z, torch.eye(1), one, None)
    torch.testing.assert_close(x, torch.tensor([0.0, 0, 0, 1, 1, 1]), rtol=0, atol=1e-30)
    assert (dz.abs() <= 1e-30).all()


@pytest.mark.parametrize("sample", [s for s in sample_inputs("render") if "jitter" in s.name][:6], ids=str)
@compiled
def test_half_precision_is_rounded_once(name: str, sample) -> None:
    *inputs, _ = sample.inputs()
    with backends.using(name):
        wide = ops.render(*inputs, torch.float32)
        assert torch.equal(ops.render(*inputs, torch.float16), wide.half())
        assert torch.equal(ops.render(*inputs, torch.bfloat16), wide.bfloat16())


def test_a_whole_run_through_the_triton_kernels_finds_the_same_picture() -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("with a CUDA device there, kernels are compiled: run `pytest -m gpu`")
    pytest.importorskip("triton")
    from support import interpreter

    if reason := interpreter.why_not():
        pytest.skip(reason)
    options = {"steps": 3, "size": 16, "batch": 2, "dtype": "float32", "device": "cpu", "progress": False}
    found = cv.maximize("texturenet", "conv1", [0, 3], kernels="triton", **options)
    expected = cv.maximize("texturenet", "conv1", [0, 3], kernels="reference", **options)
    torch.testing.assert_close(found.history, expected.history, rtol=1e-4, atol=1e-4)
    assert (found.images - expected.images).abs().max() <= 1 / 255
