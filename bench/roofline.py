"""Measures how close a step comes to the machine's limits, as shares of measured ceilings.

    python -m bench.roofline
    python -m bench.roofline --cases vgg16/features.28 --device cuda

The ceilings (matrix product and copy) run in the same rounds as the steps. Work is counted, not estimated:
PyTorch's counter gives the floating point operations of the trunk and its input gradient, without the folded
last layer; for the bytes, every operation of that pass reads and writes its tensors once. A share below one
is time in which the arithmetic waits: for memory (bytes at copy speed), for convolutions that run below the
matrix product's speed, or for work outside the network. Weights are random; speed does not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.race import DOCS, machine
from bench.step import network_alone, network_input, stepper, transforms
from bench.support.cases import opened
from bench.support.charts import bars
from bench.support.measure import Work, append, copy_of, interleaved, quantiles
from cnnvis_fast.ascent.allocator import kept_buffers
from cnnvis_fast.ascent.devices import cpu_has_bfloat16
from cnnvis_fast.ascent.plan import Plan, make_plan
from cnnvis_fast.config import configure

CASES = (
    "vgg16/features.2",
    "vgg16/features.7",
    "vgg16/features.14",
    "vgg16/features.21",
    "vgg16/features.28",
    "resnet18/layer3",
    "squeezenet1_0/features.12.expand3x3",
)
_SIDE = 2048  # side of the matrices in the product
_COPIED = 2**28  # bytes that the copy moves: more than any cache holds


class Traffic(TorchDispatchMode):
    """Counts the bytes of the tensors that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.itemsize for t in tensors)
        return result


def counted(plan: Plan) -> tuple[int, int]:
    """Returns floating point operations and bytes of the network and its input gradient, per picture."""
    selection = plan.objective.select(range(plan.batch), plan.device)
    x = network_input(plan).requires_grad_()
    with torch.enable_grad(), Traffic() as traffic, FlopCounterMode(display=False) as counter:
        plan.objective.scores(plan.module(x), *selection).sum().backward()
    return counter.get_total_flops() // plan.batch, traffic.bytes // plan.batch


def ceilings(device: str, side: int = _SIDE, copied: int = _COPIED) -> dict[str, Work]:
    """Returns the machine's limits: matrix products in float32 and, if supported, bfloat16, and a copy."""

    def product(dtype: torch.dtype) -> Work:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        return lambda: a @ b

    found = {"float32": product(torch.float32), "copy": copy_of(copied, device)}
    if device != "cpu" or cpu_has_bfloat16():
        found["bfloat16"] = product(torch.bfloat16)
    return found


def measured(
    case: str,
    device: str = "cpu",
    seconds: float = 6.0,
    side: int = _SIDE,
    copied: int = _COPIED,
    **options: Any,
) -> dict[str, Any]:
    """Returns one row: rates and shares of a target, from medians of rounds that include its ceilings."""
    model, layer = opened(case)
    plan = make_plan(model, layer, configure(device=device, **options))
    flops, traffic = counted(plan)
    works = {
        "step": stepper(plan, use_compile=bool(plan.config.compile)),
        "network": network_alone(plan),
        "transforms": transforms(plan),
        **ceilings(device, side, copied),
    }
    with torch.no_grad(), kept_buffers():
        times = interleaved(works, device, seconds)
    middle = {what: quantiles(found)[1] for what, found in times.items()}
    dtype = plan.config.dtype
    ceiling = 2 * side**3 / middle[dtype] / 1e6  # GFLOP/s
    bandwidth = copied / middle["copy"] / 1e6  # GB/s
    per_image = {what: middle[what] / plan.batch for what in ("step", "network", "transforms")}
    row = {"case": case, "batch": plan.batch, "dtype": dtype, "device": device, "program": bool(plan.program)}
    row |= {f"{what}_ms_per_image": round(value, 4) for what, value in per_image.items()}
    row |= {"gflop_per_image": round(flops / 1e9, 4), "mbyte_per_image": round(traffic / 1e6, 3)}
    row |= {
        f"matmul_{name}_gflops": round(2 * side**3 / middle[name] / 1e6, 1) for name in _DTYPES & {*middle}
    }
    row |= {"copy_gbps": round(bandwidth, 2), "rounds": len(times["step"])}
    row |= {
        "step_share": round(flops / per_image["step"] / 1e6 / ceiling, 4),
        "network_share": round(flops / per_image["network"] / 1e6 / ceiling, 4),
        "traffic_share": round(traffic / 1e6 / bandwidth / per_image["step"], 4),
        "outside_share": round(1 - per_image["network"] / per_image["step"], 4),
    }
    append(f"roofline-{device}", row)
    return row


_DTYPES = {"float32", "bfloat16"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the printed table."""
    lines = [
        "case                                    batch  ms/image  GFLOP   MB      share of matmul: "
        "step network  outside  copying"
    ]
    for row in rows:
        lines.append(
            f"{row['case']:<40} {row['batch']:4} {row['step_ms_per_image']:9.2f} "
            f"{row['gflop_per_image']:6.2f} "
            f"{row['mbyte_per_image']:7.1f} {row['step_share']:22.3f} {row['network_share']:7.3f} "
            f"{row['outside_share']:8.3f} {row['traffic_share']:8.3f}"
        )
    last = rows[-1]
    rates = ", ".join(
        f"{key[7:-7]} {value} GFLOP/s" for key, value in last.items() if key.startswith("matmul")
    )
    return "\n".join([*lines, f"ceilings in the last case's rounds: {rates}, copy {last['copy_gbps']} GB/s"])


def chart(path: Path, rows: Sequence[Mapping[str, Any]], device: str) -> None:
    """Draws the shares of the matrix product's rate, by target."""
    names = {"cnnvis_fast, whole step": "step_share", "network alone": "network_share"}
    groups = {row["case"]: {name: 100 * row[column] for name, column in names.items()} for row in rows}
    title = f"Share of the measured matrix product's rate ({rows[0]['dtype']})"
    bars(path, title, "%", groups, note=machine(device), full=200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="MODEL/LAYER, separated by commas")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=6.0, help="minimum time per case")
    asked = parser.parse_args()
    rows = [measured(case, asked.device, asked.seconds) for case in asked.cases.split(",")]
    print(table(rows))
    chart(DOCS / "roofline.png", rows, asked.device)


if __name__ == "__main__":
    main()
