"""Measures milliseconds per picture and step on the CPU: variants of the whole step, and its parts.

python -m bench.step squeezenet1_0 features.12.expand3x3 --weights none

All run interleaved. "Outside" is everything but the network and the Fourier transforms: the ops and the
scaling of the spectrum, one after the other on tensors of the whole batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.support.measure import Work, append, interleaved, quantiles
from cnnvis_fast import load_model
from cnnvis_fast.ascent.allocator import kept_buffers
from cnnvis_fast.ascent.loop import compiled, step_function
from cnnvis_fast.ascent.penalties import penalized
from cnnvis_fast.ascent.plan import Plan, make_plan
from cnnvis_fast.ascent.transforms import warp_table
from cnnvis_fast.config import configure
from cnnvis_fast.kernels import ops
from cnnvis_fast.parameterizations.fourier import Fourier


def stepper(plan: Plan, use_compile: bool, **options: Any) -> Callable[[], object]:
    """Returns a function for one step on a full batch that keeps its state; options go to `torch.compile`."""
    step = step_function(plan, plan.module)
    step = compiled(step, **options) if use_compile else step
    keys = [plan.key(channel) for channel in range(plan.batch)]
    selection = plan.select(range(plan.batch))
    state = moments(plan, plan.parameters.start(keys).to(plan.device))
    warp, rates = first_warp(plan, keys), plan.schedule()[0]
    return lambda: step(*state, None, warp, None, rates, *selection)


def moments(plan: Plan, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns parameters with the moments that the plan's update keeps: per coefficient or per picture."""
    per_coefficient = plan.config.second_moment == "coefficient"
    return p, torch.zeros_like(p), torch.zeros_like(p) if per_coefficient else p.new_zeros(len(p))


def first_warp(plan: Plan, keys: Sequence[str]) -> Tensor | None:
    """Returns the first step's transform of every picture, on the device."""
    warp = warp_table(plan.config, keys, int(plan.config.size or 0))[0]
    return None if warp is None else warp.to(plan.device)


def network_input(plan: Plan) -> Tensor:
    """Returns a full batch as the network reads it."""
    x = plan.example.expand(plan.batch, -1, -1, -1).to(plan.device, plan.dtype)
    return x.contiguous(memory_format=torch.channels_last)


def network_alone(plan: Plan) -> Work:
    """Returns the step's forward and backward pass as a function: the plan's program if it has one."""
    selection = plan.select(range(plan.batch))
    x, program = network_input(plan), plan.program
    if program is None:
        gradient = torch.func.grad(lambda x: plan.objective.scores(plan.module(x), *selection).sum())
        return lambda: gradient(x)

    return lambda: plan.objective.gradient(program, x, *selection)


def transforms(plan: Plan) -> Work:
    """Returns a function for both real Fourier transforms of a full batch."""
    assert isinstance(plan.parameters, Fourier)
    p = plan.parameters.start([plan.key(channel) for channel in range(plan.batch)]).to(plan.device)
    size = plan.parameters.size
    spectrum = torch.view_as_complex(p * plan.parameters.scale)
    z = torch.fft.irfft2(spectrum, s=(size, size), norm="forward").contiguous()
    return lambda: (torch.fft.irfft2(spectrum, s=(size, size), norm="forward"), torch.fft.rfft2(z))


def parts(plan: Plan) -> dict[str, Callable[[], object]]:
    """Returns the parts of a step outside the network, by name; each uses results of the previous part."""
    keys = [plan.key(channel) for channel in range(plan.batch)]
    fourier = plan.parameters
    assert isinstance(fourier, Fourier)
    p = fourier.start(keys).to(plan.device)
    state = moments(plan, p)
    warp, rates = first_warp(plan, keys), plan.schedule()[0]
    spectrum, shape = torch.view_as_complex(p * fourier.scale), (fourier.size, fourier.size)
    z = torch.fft.irfft2(spectrum, s=shape, norm="forward").contiguous()
    x = ops.render(z, plan.color, plan.mean, plan.std, warp, plan.dtype)
    dz = ops.render_backward(x, z, plan.color, plan.std, warp)
    raw = torch.view_as_real(torch.fft.rfft2(dz))

    def outside() -> object:
        torch.view_as_complex(p * fourier.scale)
        ops.render(z, plan.color, plan.mean, plan.std, warp, plan.dtype)
        penalized(ops.render_backward(x, z, plan.color, plan.std, warp), z, plan.color, plan.config)
        dp = raw * fourier.adjoint_scale
        return ops.ascend_(*state, dp, rates, None, 0.5, 0.99, 1e-12, 0.0)

    return {
        "outside": outside,
        "render": lambda: ops.render(z, plan.color, plan.mean, plan.std, warp, plan.dtype),
        "render_backward": lambda: ops.render_backward(x, z, plan.color, plan.std, warp),
        "restrain": lambda: penalized(dz, z, plan.color, plan.config),
        "ascend_": lambda: ops.ascend_(*state, raw, rates, None, 0.5, 0.99, 1e-12, 0.0),
        "scale, both ways": lambda: (p * fourier.scale, raw * fourier.adjoint_scale),
        "transforms": transforms(plan),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("layer")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--seconds", type=float, default=60, help="time limit for everything")
    parser.add_argument("--compile", action="store_true", help="race the compiled step too")
    arguments = parser.parse_args()
    model = load_model(arguments.model, arguments.weights)
    variants: dict[str, tuple[int, Callable[[], object]]] = {}
    for batch in (1, 4, 8, 16):
        plan = make_plan(model, arguments.layer, configure(batch=batch, device="cpu"))
        variants[f"step, batch {batch}"] = (batch, stepper(plan, use_compile=False))
    variants["network"] = (16, network_alone(plan))
    variants |= {name: (16, work) for name, work in parts(plan).items()}
    if arguments.compile:
        variants["step, batch 16, compiled"] = (16, stepper(plan, use_compile=True))
    with torch.no_grad(), kept_buffers():
        times = interleaved({name: work for name, (_, work) in variants.items()}, "cpu", arguments.seconds)
    for name, found in times.items():
        p20, p50, p80 = (value / variants[name][0] for value in quantiles(found))
        print(f"{name:<26} {p20:7.3f} {p50:7.3f} {p80:7.3f} ms per image (p20 p50 p80)")
        row = {"model": arguments.model, "layer": arguments.layer, "part": name, "batch": variants[name][0]}
        row |= {"ms_per_image_p20": round(p20, 4), "ms_per_image_p50": round(p50, 4)}
        row |= {"ms_per_image_p80": round(p80, 4), "rounds": len(found), "kernels": plan.config.kernels}
        append("step-cpu", {**row, "x_dtype": plan.config.dtype, "device": "cpu"})


if __name__ == "__main__":
    main()
