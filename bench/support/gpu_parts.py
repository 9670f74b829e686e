"""The parts of `bench.gpu`: each takes a scale and a deadline, prints its table, returns its JSON entries."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cnnvis_fast as cv
from bench import roofline
from bench.race import OURS, machine, race_steps
from bench.step import stepper
from bench.support.cases import opened
from bench.support.charts import bars
from bench.support.checkout import ROOT
from bench.support.measure import copy_of, interleaved, quantiles
from bench.support.op_cases import BYTES, CHANNELS, Inputs, assert_same, work
from cnnvis_fast.ascent.loop import Ascent
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.kernels import backends, ops, reference

sys.path.append(str(ROOT / "tests"))  # the samples and tolerances of every op are in the tests

Found = dict[str, Any]
Part = Callable[["Scale", float, Mapping[str, str]], Found]


@dataclass(frozen=True)
class Scale:
    """Sizes of all parts."""

    device: str
    same_bits: str
    profiled: tuple[str, ...]
    race: tuple[str, ...]
    roofline: tuple[str, ...]
    options: Mapping[str, Any]  # for `configure`
    kernels: tuple[int, int]  # number of pictures, and their size
    samples: int | None  # per op; None: all
    matrix: int
    copied: int
    atlas: tuple[str, ...]  # arguments of the command


FULL = Scale(
    device="cuda",
    same_bits="squeezenet1_0/features.12.expand3x3",
    profiled=("vgg16/features.28", "squeezenet1_0/features.12.expand3x3"),
    race=("vgg16/features.14", "vgg16/features.28", "squeezenet1_0/features.12.expand3x3"),
    roofline=roofline.CASES,
    options={},
    kernels=(64, 224),
    samples=None,
    matrix=8192,
    copied=2**31,
    atlas=("vgg16", "--weights", "none", "--all-layers", "--filters", "0-63", "--steps", "128"),
)
SMALL = Scale(
    device="cpu",
    same_bits="texturenet/features.14",
    profiled=("texturenet/features.14",),
    race=("texturenet/features.14",),
    roofline=("texturenet/features.14",),
    options={"size": 48, "steps": 4},
    kernels=(2, 64),
    samples=2,
    matrix=128,
    copied=2**20,
    atlas=("texturenet", "--all-layers", "--steps", "2", "--size", "32", "--filters", "0-3"),
)
LOADS_OF_CACHE = 4  # a kernel is timed on tensors so many times as large as the second-level cache
CALLS = 10  # launches in one CUDA graph: a graph's own launch then costs a tenth of it
LOOP_OPS = ("render", "render_backward", "ascend_", "dot", "restrain")
NETWORK_OPS = ("rectify", "positive", "rectify_backward", "max_pool", "max_pool_backward")
OPS = (*LOOP_OPS, *NETWORK_OPS)


def chosen_scale(dry_run: bool) -> Scale:
    """Returns the sizes of a run."""
    return SMALL if dry_run else FULL


def same_bits(scale: Scale, _deadline: float, _environment: Mapping[str, str]) -> Found:
    """Makes one batch twice, with its slots permuted, and in two halves; the pictures must be the same."""
    model, layer = opened(scale.same_bits)
    plan = make_plan(model, layer, configure(**{"device": scale.device, "steps": 32, **scale.options}))
    ascent, units = Ascent(plan), list(range(plan.batch))
    permuted, half = units[1::2] + units[::2], plan.batch // 2
    began = time.perf_counter()
    expected = ascent.run(units).images
    seconds = round(time.perf_counter() - began, 2)
    found = {
        "twice": ascent.run(units).images,
        "with its slots permuted": ascent.run(permuted).images[torch.tensor(permuted).argsort()],
        "in two halves": torch.cat([ascent.run(units[:half]).images, ascent.run(units[half:]).images]),
    }
    wrong = [f"{way}: other bits" for way, images in found.items() if not torch.equal(images, expected)]
    print(f"{plan.batch} pictures of {scale.same_bits} in {seconds} s; the same bits", end=" ")
    print(", ".join(way for way in found if f"{way}: other bits" not in wrong) or "never")
    print(*wrong, sep="\n")
    return {"case": scale.same_bits, "batch": plan.batch, "seconds_a_batch": seconds, "wrong": wrong}


def profiles(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Shows where the time of one step goes: the kernels that take longest, by PyTorch's profiler."""
    cuda = scale.device != "cpu"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    found: Found = {}
    for case in scale.profiled:
        if time.monotonic() > deadline:
            print(f"{case}: left out, no time left")
            continue
        model, layer = opened(case)
        step = stepper(make_plan(model, layer, configure(device=scale.device, **scale.options)), False)
        with torch.no_grad():
            step()
            with torch.profiler.profile(activities=activities) as profiler:
                step()
                torch.cuda.synchronize() if cuda else None
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        rows = sorted(profiler.key_averages(), key=lambda row: -getattr(row, key))[:15]
        found[case] = [[row.key, row.count, round(getattr(row, key), 1)] for row in rows]
        print(f"{case}: microseconds on the device, calls" if cuda else f"{case}: microseconds, calls")
        for name, count, microseconds in found[case]:
            print(f"  {microseconds:10.1f} {count:5d}  {name[:90]}")
    return {"microseconds": found}


def correctness(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Checks all kernels on the tests' samples: floats as exact as plain PyTorch's, other values equal."""
    from support.network_samples import network_samples
    from support.samples import sample_inputs

    names = {op: (sample_inputs if op in LOOP_OPS else network_samples)(op) for op in OPS}
    rounds = itertools.zip_longest(
        *([(op, s) for s in samples[: scale.samples]] for op, samples in names.items())
    )
    checked, wrong = dict.fromkeys(OPS, 0), []
    # Takes one sample of every op in turn, so that all of them lose a few when time runs out.
    for op, sample in filter(None, itertools.chain.from_iterable(rounds)):
        if time.monotonic() > deadline:
            break
        try:
            reason = mistake(op, sample, scale.device)
        except Exception as error:  # one sample that fails must not hide the others
            reason = f"{type(error).__name__}: {str(error)[:200]}"
        if reason:
            wrong.append(f"{op} {sample}: {reason}")
        checked[op] += 1
    for op, count in checked.items():
        bad = sum(line.startswith(f"{op} ") for line in wrong)
        print(f"{op:<20} {count} of {len(names[op])} samples, {bad} wrong")
    print(*wrong, sep="\n")
    return {"checked": checked, "samples": {op: len(found) for op, found in names.items()}, "wrong": wrong}


def mistake(op: str, sample: Any, device: str) -> str | None:
    """Returns what is wrong with a kernel's results on one sample, or None."""
    from support.tolerance import assert_as_exact, widened

    def results(module: Any, precise: bool) -> list[Tensor]:
        inputs = [widened(value) if precise else value for value in sample.inputs(device=device)]
        if op == "render" and precise:
            inputs[-1] = torch.float64
        made = getattr(module, op)(*inputs)
        changed = inputs[:3] if op == "ascend_" else []
        return [t for t in [*changed, *([made] if isinstance(made, Tensor) else made)] if t is not None]

    triple = (results(ops, False), results(reference, False), results(reference, True))
    for found, plain, exact in zip(*triple, strict=True):
        if not found.is_floating_point():
            if not torch.equal(found, plain):
                return "the bits differ from plain PyTorch's"
            continue
        try:
            assert_as_exact(found, plain, exact)
        except AssertionError as error:
            return str(error)
    return None


def race(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Prints the tables of `bench.race steps`, case by case until the deadline."""
    found: Found = {}
    for case in scale.race:
        if time.monotonic() > deadline:
            print(f"{case}: left out, no time left")
            continue
        found |= race_steps([case], scale.device, seconds=1.0, **scale.options)
    return {"ms_per_image_step": found}


def variants(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Times the step eager, compiled, and compiled with CUDA graphs; first calls separately."""
    model, layer = opened(scale.race[-1])
    plan = make_plan(model, layer, configure(device=scale.device, **scale.options))
    modes = {"eager": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}
    works, first, failures = {}, {}, {}
    for variant, mode in modes.items():
        if time.monotonic() > deadline or (mode == "reduce-overhead" and scale.device == "cpu"):
            print(f"{variant}: left out")
            continue
        one = stepper(plan, mode is not None, **({"mode": mode} if mode else {}))
        began = time.perf_counter()
        try:
            with torch.no_grad():
                one()
        except Exception as error:  # a variant that fails is a result, too
            failures[variant] = f"{type(error).__name__}: {str(error)[:200]}"
            print(f"{variant}: {failures[variant]}")
            continue
        works[variant], first[variant] = one, round(time.perf_counter() - began, 2)
    with torch.no_grad():
        times = interleaved(works, scale.device, 2.0)
    middle = {variant: round(quantiles(spent)[1] / plan.batch, 4) for variant, spent in times.items()}
    for variant, value in middle.items():
        print(f"{variant:<14} {value:9.4f} ms per picture and step; first call {first[variant]} s")
    return {"case": scale.race[-1], "ms_per_image": middle, "first_call_s": first, "failures": failures}


def ceilings(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Runs `bench.roofline`, case by case until the deadline."""
    rows = []
    for case in scale.roofline:
        if time.monotonic() > deadline:
            print(f"{case}: left out, no time left")
            continue
        sizes = (scale.matrix, scale.copied)
        rows.append(roofline.measured(case, scale.device, 1.0, *sizes, **scale.options))
    print(roofline.table(rows))
    return {"rows": rows}


def kernels(scale: Scale, deadline: float, _environment: Mapping[str, str]) -> Found:
    """Times each of our ops against a copy of the bytes that it has to move.

    On a GPU, launches are replayed in a CUDA graph, so that the host does not count, and tensors do not fit
    into the cache.
    """
    shares, (count, size) = {}, scale.kernels
    if scale.device != "cpu":
        cache = torch.cuda.get_device_properties(scale.device).L2_cache_size
        count = max(count, -(-LOADS_OF_CACHE * cache // (4 * CHANNELS * size * size)))
    forms = (*itertools.product(("render", "render_backward"), ("jitter", "affine")),)
    still = ("dot", "restrain", "ascend_ image", "ascend_ coefficient")
    for op, form in (*forms, *((op, "none") for op in still)):
        if time.monotonic() > deadline:
            print(f"{op}, {form}: left out, no time left")
            continue
        inputs = Inputs(count, size, form, scale.device)
        with torch.no_grad():
            assert_same(work(op, inputs, ops)(), work(op, inputs, reference)())
            copy = copy_of(BYTES[op] * inputs.p.numel(), scale.device)
            works = {"op": work(op, inputs, ops), "copy": copy}
            calls = 1
            if scale.device != "cpu":
                works, calls = {what: graphed(one) for what, one in works.items()}, CALLS
            times = interleaved(works, scale.device, 1.0)
        middle = {what: quantiles(spent)[1] / calls for what, spent in times.items()}
        shares[f"{op}, {form}"] = round(middle["copy"] / middle["op"], 3)
        print(f"{op:<22} {form:<8} {middle['op']:8.4f} ms, {shares[f'{op}, {form}']:6.3f} of copy bandwidth")
    return {"backend": backends.automatic(torch.device(scale.device)), "share_of_copy": shares}


def graphed(one: Callable[[], object]) -> Callable[[], object]:
    """Returns a function that launches a CUDA graph of `CALLS` calls."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        one()  # compiled and configured before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            one()
    return graph.replay


def atlas(scale: Scale, deadline: float, environment: Mapping[str, str]) -> Found:
    """Runs the command in its own process, twice: with cold compiler caches, then with warm ones."""
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        for name in ("cold", "warm"):
            out = Path(folder, name)
            command = [sys.executable, "-m", "cnnvis_fast", "atlas", *scale.atlas, "--device", scale.device]
            began = time.monotonic()
            left = (deadline - began) * (0.6 if name == "cold" else 1)
            process = subprocess.Popen(
                [*command, "--out", str(out)],
                cwd=folder,
                env={**environment, **caches},
                stdout=subprocess.DEVNULL,
            )
            try:
                code: int | str = process.wait(max(1.0, left))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # it ends cleanly, and its finished tiles count
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                code = "out of time"
            log = out / "log.jsonl"
            lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            batches = [line for line in lines if "filters" in line and "seconds" in line]
            made = sum(len(line["filters"]) for line in batches)
            seconds = round(sum(line["seconds"] for line in batches), 2)
            wall = round(time.monotonic() - began, 2)
            whole, filters = extrapolated(batches, scale.atlas[0])
            found[name] = {"code": code, "pictures": made, "seconds": seconds, "wall_s": wall}
            found[name] |= {"extrapolated_s": whole, "extrapolated_filters": filters}
            print(f"{name}: {made} pictures in {wall} s, {seconds} s from batch to batch; ended with {code}")
            print(f"  extrapolated, not measured: {whole} s for all {filters} filters of these layers")
            if code not in (0, "out of time"):
                raise RuntimeError(f"the command ended with code {code}")
    return found


def extrapolated(batches: Sequence[Mapping[str, Any]], model: str) -> tuple[float, int]:
    """Returns the seconds that all filters of the layers made so far would take, and their number."""
    network, seconds, filters = cv.load_model(model, None), 0.0, 0
    for layer in dict.fromkeys(line["layer"] for line in batches):
        lines = [line for line in batches if line["layer"] == layer]
        made, spent = sum(len(line["filters"]) for line in lines), sum(line["seconds"] for line in lines)
        count = int(network.get_submodule(layer).out_channels)
        seconds, filters = seconds + spent * count / made, filters + count
    return round(seconds, 1), filters


def chart(path: Path, report: Mapping[str, Any], device: str) -> None:
    """Draws the race's milliseconds and the shares of the ceilings in percent, for the finished parts."""
    times = {
        f"{case}, ms per picture and step": row
        for case, row in _of(report, "race", "ms_per_image_step").items()
    }
    bars(path, "The race", "ms", times, OURS, machine(device))
    shares = {
        row["case"]: {
            f"{OURS}, whole step": 100 * row["step_share"],
            "network alone": 100 * row["network_share"],
        }
        for row in _of(report, "roofline", "rows")
    }
    copies = {f"{OURS} {op}": 100 * share for op, share in _of(report, "kernels", "share_of_copy").items()}
    groups = {**shares, **({"share of copy bandwidth": copies} if copies else {})}
    title = "Shares of measured ceilings: matrix product, copy"
    bars(path.with_name(f"{path.stem}-roofline.png"), title, "%", groups, OURS, machine(device), 110)


def _of(report: Mapping[str, Any], part: str, what: str) -> Any:
    return report.get(part, {}).get(what, {})


PARTS: tuple[tuple[str, float, Part], ...] = (
    ("same_bits", 0.1, same_bits),
    ("correctness", 0.15, correctness),
    ("profiles", 0.1, profiles),
    ("variants", 0.15, variants),
    ("roofline", 0.15, ceilings),
    ("kernels", 0.08, kernels),
    ("race", 0.15, race),
    ("atlas", 1.0, atlas),
)
"""Name, maximum share of the total time, and function. The last part takes the remaining time."""
