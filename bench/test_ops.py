"""Times the loop's ops against plain PyTorch, against compiled PyTorch, and against a copy.

pytest bench

Every case runs its contenders interleaved and appends a row for each to `bench/results/ops-<device>.jsonl`.
The floor is a copy of the bytes that the op has to move (`BYTES`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from bench.support.measure import append, copy_of, interleaved, quantiles
from bench.support.op_cases import BYTES, NETWORK, Inputs, assert_same, work
from cnnvis_fast.ascent.allocator import kept_buffers
from cnnvis_fast.kernels import backends, ops, reference

BATCHES, SIZES = (1, 16, 64), (64, 224, 512)


CASES = [
    (op, form, batch, size)
    for batch in BATCHES
    for size in SIZES
    for op, form in (
        ("render", "jitter"),
        ("render", "affine"),
        ("render_backward", "jitter"),
        ("render_backward", "affine"),
        ("dot", "none"),
        ("restrain", "none"),
        ("ascend_ image", "none"),
        ("ascend_ coefficient", "none"),
        ("together", "jitter"),
        ("together", "affine"),
    )
    if op != "together" or size == 224
]


def grid_sample_with_backward(inputs: Inputs) -> Callable[[], object]:
    """Returns the warp alone, by PyTorch's functions and autograd, in the dtype that they support."""
    picture, g = torch.sigmoid(inputs.p), inputs.g.float()

    def both() -> object:
        with torch.enable_grad():
            leaf = picture.detach().requires_grad_()
            grid = affine_grid(inputs.warp, list(leaf.shape), align_corners=False)
            x = grid_sample(leaf, grid, padding_mode="reflection", align_corners=False)
            return torch.autograd.grad(x, leaf, g)

    return both


@pytest.mark.parametrize(
    ("op", "form", "batch", "size"), CASES, ids=lambda value: str(value).replace(" ", "-")
)
def test_op(benchmark: Any, device: str, op: str, form: str, batch: int, size: int) -> None:
    inputs = Inputs(batch, size, form, device)
    kernels = backends.automatic(torch.device(device))
    assert kernels != "reference", backends.why_reference(torch.device(device))
    torch.compiler.reset()
    compiled = torch.compile(work(op, inputs, reference), fullgraph=True, dynamic=False)
    count = BYTES[op] * inputs.p.numel()
    with torch.no_grad(), kept_buffers():
        assert_same(work(op, inputs, ops)(), work(op, inputs, reference)())
        began = time.perf_counter()
        compiled()
        compile_seconds = time.perf_counter() - began
        contenders = {
            kernels: work(op, inputs, ops),
            "eager": work(op, inputs, reference),
            "inductor": compiled,
            "copy": copy_of(count, device),
        }
        times = interleaved(contenders, device)
        benchmark.extra_info["bytes"] = count
        benchmark.pedantic(contenders[kernels], rounds=10, warmup_rounds=1)
    middle = {name: quantiles(found)[1] for name, found in times.items()}
    for name, found in times.items():
        p20, p50, p80 = (round(value, 4) for value in quantiles(found))
        row: dict[str, object] = {"op": op, "form": form, "batch": batch, "size": size, "contender": name}
        row |= {"ms_p20": p20, "ms_p50": p50, "ms_p80": p80, "rounds": len(found), "bytes": count}
        row |= {"times_kernels": round(p50 / middle[kernels], 2)}
        row |= {"share_of_copy": round(middle["copy"] / p50, 3), "x_dtype": str(NETWORK), "device": device}
        if name == "inductor":
            row["compile_s"] = round(compile_seconds, 1)
        append(f"ops-{device}", row)
        benchmark.extra_info[f"{name}_ms"] = p50


def test_affine_against_grid_sample(benchmark: Any, device: str) -> None:
    inputs = Inputs(16, 224, "affine", device)
    contenders = {
        "render + render_backward": lambda: (inputs.render(ops), inputs.render_backward(ops)),
        "grid_sample with its backward": grid_sample_with_backward(inputs),
    }
    with torch.no_grad(), kept_buffers():
        times = interleaved(contenders, device)
        benchmark.pedantic(contenders["render + render_backward"], rounds=10, warmup_rounds=1)
    for name, found in times.items():
        p20, p50, p80 = (round(value, 4) for value in quantiles(found))
        row: dict[str, object] = {"op": "warp", "form": "affine", "batch": 16, "size": 224, "contender": name}
        row |= {"ms_p20": p20, "ms_p50": p50, "ms_p80": p80, "rounds": len(found), "device": device}
        append(f"ops-{device}", row)
        benchmark.extra_info[f"{name}_ms"] = p50
