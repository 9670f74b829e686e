"""Milliseconds per image and step of the loop on the CPU, in variants that run interleaved.

python -m bench.step squeezenet1_0 features.12.expand3x3 --weights none
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from cnnvis_fast import load_model
from cnnvis_fast.ascent import compiled, step_function
from cnnvis_fast.config import configure
from cnnvis_fast.memory import kept_buffers
from cnnvis_fast.plan import Plan, make_plan
from cnnvis_fast.warps import warp_table


def stepper(plan: Plan, use_compile: bool) -> Callable[[], object]:
    """One whole step on a full batch, state kept between calls."""
    step = step_function(plan, plan.module)
    step = compiled(step) if use_compile else step
    keys = [plan.key(channel) for channel in range(plan.batch)]
    selection = plan.objective.select(range(plan.batch), plan.device)
    p = plan.parameters.start(keys)
    state = (p, torch.zeros_like(p), p.new_zeros(len(p)))
    warp = warp_table(plan.config, keys, int(plan.config.size or 0))[0]
    rates = plan.schedule()[0]
    return lambda: step(*state, warp, rates, *selection)


def trunk_alone(plan: Plan) -> Callable[[], object]:
    """Forward and input gradient of the network, without our operations and the parameterization."""
    selection = plan.objective.select(range(plan.batch), plan.device)
    x = (
        plan.example.expand(plan.batch, -1, -1, -1)
        .to(plan.dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    gradient = torch.func.grad(lambda x: plan.objective.scores(plan.module(x), *selection).sum())
    return lambda: gradient(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("layer")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="race the compiled step too")
    arguments = parser.parse_args()
    model = load_model(arguments.model, arguments.weights)
    variants: dict[str, tuple[int, Callable[[], object]]] = {}
    for batch in (1, 4, 8, 16):
        plan = make_plan(model, arguments.layer, configure(batch=batch, device="cpu"))
        variants[f"step, batch {batch}"] = (batch, stepper(plan, use_compile=False))
        if batch == 8:
            variants["trunk alone, batch 8"] = (8, trunk_alone(plan))
            if arguments.compile:
                variants["step, batch 8, compiled"] = (8, stepper(plan, use_compile=True))
    times: dict[str, list[float]] = {name: [] for name in variants}
    with torch.no_grad(), kept_buffers():
        for _ in range(arguments.rounds):
            for name, (batch, run) in variants.items():
                run()
                began = time.perf_counter()
                run()
                run()
                times[name].append((time.perf_counter() - began) * 500 / batch)
    base = statistics.median(times["step, batch 8"])
    for name, found in times.items():
        low, middle, high = (statistics.quantiles(found, n=10)[k] for k in (1, 4, 7))
        row = f"{low:7.2f} {middle:7.2f} {high:7.2f} ms per image (p20 p50 p80)"
        print(f"{name:<34} {row}, {middle / base:.2f} x")


if __name__ == "__main__":
    main()
