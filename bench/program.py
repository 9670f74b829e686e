"""Times a network's forward pass and input gradient: program, autograd and compiled network.

python -m bench.program                                the four standard cases
python -m bench.program squeezenet1_0 features.12.expand3x3

All variants run interleaved and keep freed buffers, as the loop does. A matrix product in the same dtype runs
with them, and shares are relative to its rate: bfloat16 where the CPU multiplies it natively, else float32.
Program and autograd run again in their own process with the allocator unchanged. Memory is the peak resident
size that one more picture adds, in its own process, which returns freed memory at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.support.measure import append, interleaved, quantiles
from cnnvis_fast import load_model
from cnnvis_fast.ascent.allocator import kept_buffers
from cnnvis_fast.ascent.devices import cpu_has_bfloat16
from cnnvis_fast.networks import trunk
from cnnvis_fast.program import make_program

CASES = (
    ("squeezenet1_0", "features.12.expand3x3"),
    ("vgg16", "features.14"),
    ("vgg16", "features.28"),
    ("resnet18", "layer3"),
)
WAYS = ("program", "autograd", "compiled")
_SIDE = 1536  # side of the matrices in the product
_MORE = 4  # pictures over which the added memory is averaged

Work = Callable[[Tensor], object]


def network(model: str, layer: str, dtype: torch.dtype) -> nn.Module:
    """Returns the trunk as the engine runs it, with random weights."""
    example = torch.linspace(-1, 1, 224).expand(1, 3, 224, 224).contiguous()
    return trunk.to_device(trunk.cut(load_model(model, "none"), layer, example), dtype, torch.device("cpu"))


def ways(module: nn.Module, dtype: torch.dtype, names: tuple[str, ...] = WAYS) -> dict[str, Work]:
    """Returns, by name, functions from pictures to their gradient, for a gradient of ones at the output."""
    # The gradient of a sum is ones, in the output's layout.
    autograd: Any = torch.func.grad(lambda x: module(x).float().sum())

    def by_program() -> Work:
        program = make_program(module, pictures(1, dtype))

        def run(x: Tensor) -> Tensor:
            output, backward = program(x)
            return backward(torch.ones_like(output))

        return run

    made = {
        "program": by_program,
        "autograd": lambda: autograd,
        "compiled": lambda: torch.compile(autograd, fullgraph=True, dynamic=False),
    }
    return {name: made[name]() for name in names}


def pictures(batch: int, dtype: torch.dtype) -> Tensor:
    """Returns noise, channels last."""
    x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def flops(module: nn.Module, x: Tensor) -> int:
    """Returns the multiplications and additions of forward and backward pass, which take as many each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x.clone())
    return 2 * int(counter.get_total_flops())


def memory(model: str, layer: str, dtype: torch.dtype, way: str) -> float:
    """Returns the MiB that a picture adds to the peak resident size."""
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    found: float = _apart(freed, _watch_peaks, model, layer, dtype, way)
    return found


def without_kept_buffers(
    model: str, layer: str, dtype: torch.dtype, batch: int, seconds: float
) -> dict[str, list[float]]:
    """Returns the milliseconds of every call with the allocator unchanged."""
    found: dict[str, list[float]] = _apart({}, _time, model, layer, dtype, batch, seconds)
    return found


def _apart(settings: dict[str, str], work: Callable[..., None], *arguments: Any) -> Any:
    """Runs `work` in its own process; returns what it puts into the queue, its last argument."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        context = multiprocessing.get_context("spawn")
        answer: Queue[Any] = context.Queue()
        process = context.Process(target=work, args=(*arguments, answer))
        process.start()
        found = answer.get(timeout=600)
        process.join()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return found


def _time(
    model: str,
    layer: str,
    dtype: torch.dtype,
    batch: int,
    seconds: float,
    answer: Queue[dict[str, list[float]]],
) -> None:
    x = pictures(batch, dtype)
    made = ways(network(model, layer, dtype), dtype, ("program", "autograd"))
    with torch.no_grad():
        answer.put(interleaved({name: partial(run, x) for name, run in made.items()}, "cpu", seconds))


def _watch_peaks(model: str, layer: str, dtype: torch.dtype, way: str, answer: Queue[float]) -> None:
    work = ways(network(model, layer, dtype), dtype, (way,))[way]

    def peak(batch: int) -> int:
        x = pictures(batch, dtype)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak
        work(x)
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

    with torch.no_grad():
        peak(1 + _MORE)  # allocates what is allocated only once
        answer.put((peak(1 + _MORE) - peak(1)) / _MORE / 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("layer", nargs="?")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=40, help="time limit per case, after five rounds")
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    matrix = torch.randn(_SIDE, _SIDE).to(dtype)
    for model, layer in [(arguments.model, arguments.layer)] if arguments.model else CASES:
        x = pictures(arguments.batch, dtype)
        module = network(model, layer, dtype)
        contenders, needed = ways(module, dtype), flops(module, x[:1])
        work: dict[str, Callable[[], object]] = {name: partial(run, x) for name, run in contenders.items()}
        work["product"] = lambda: matrix @ matrix
        with torch.no_grad(), kept_buffers():
            times = interleaved(work, "cpu", arguments.seconds)
        rate = 2 * _SIDE**3 / quantiles(times.pop("product"))[1] / 1e6  # Gflop/s
        usual = without_kept_buffers(model, layer, dtype, arguments.batch, arguments.seconds / 2)
        autograd = quantiles(times["autograd"])[1]
        for name, found in times.items():
            p20, p50, p80 = (value / arguments.batch for value in quantiles(found))
            row = {
                "model": model,
                "layer": layer,
                "way": name,
                "batch": arguments.batch,
                "x_dtype": str(dtype)[6:],
            }
            row |= {"ms_per_image_p20": p20, "ms_per_image_p50": p50, "ms_per_image_p80": p80}
            row |= {"faster_than_autograd": autograd / arguments.batch / p50, "rounds": len(found)}
            row |= {"gflop_per_image": needed / 1e9, "product_gflops": rate}
            row["share_of_product"] = needed / p50 / 1e6 / rate
            if name in usual:
                row["ms_per_image_without_kept_buffers"] = quantiles(usual[name])[1] / arguments.batch
                row["peak_mib_per_image"] = memory(model, layer, dtype, name)
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            append("program-cpu", {**row, "device": "cpu"})


if __name__ == "__main__":
    main()
