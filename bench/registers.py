"""Prints the registers and spills of every relevant kernel variant, compiled ahead of time: needs no GPU.

python -m bench.registers

Exits with code 1 if any kernel spills registers to memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from cnnvis_fast.kernels import triton as kernels
from cnnvis_fast.kernels.geometry import Geometry
from cnnvis_fast.kernels.triton import _launch

ARCHITECTURES = (80, 90, 100)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Driver:
    """Replaces the GPU's driver: names the architecture to compile for."""

    architecture = 0

    def get_current_device(self) -> int:
        return self.architecture  # compiled kernels are cached by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


def launches() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yields variant, op and arguments of every launch. Nothing is computed, so the memory may be empty."""
    batch, channels, size = 8, 3, 224
    z = torch.empty(batch, channels, size, size)
    x = torch.empty_like(z, dtype=torch.bfloat16, memory_format=torch.channels_last)
    color, mean, std = torch.empty(channels, channels), torch.empty(channels), torch.empty(channels)
    for kind, warp in {
        "none": None,
        "jitter": torch.empty(batch, 2, dtype=torch.int64),
        "affine": torch.empty(batch, 2, 3),
    }.items():
        yield kind, kernels.render, (z, color, mean, std, warp, x.dtype)
        yield kind, kernels.render_backward, (x, z, color, std, warp)
    yield "", kernels.dot, (x, x)
    yield "", kernels.restrain, (z, z, color, 0.8, 3.0)
    p = torch.empty(batch, channels, size, size // 2 + 1, 2)
    schedule, band = torch.empty(batch, 3), torch.zeros(p.shape[1:], dtype=torch.int64)
    seconds = {"coefficient": p, "band": p[:, 0, 0, :, 0], "image": schedule[:, 0], "none": None}
    for decay in (0.0, 0.1):
        for kind, v in seconds.items():
            rest = (band if kind == "band" else None, 0.9, 0.99, 1e-8, decay)
            yield f"{kind}, decay" if decay else kind, kernels.ascend_, (p, p, v, p, schedule, *rest)
    yield from network_launches(batch)


def network_launches(batch: int) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yields variant, op and arguments of the launches of ops inside a network."""
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = torch.empty(batch, 64, 56, 56, dtype=dtype, memory_format=torch.channels_last)
        mask = torch.empty(batch, 56, 56, 8, dtype=torch.uint8)
        yield name, kernels.positive, (x,)
        yield f"{name}, sum", kernels.rectify, ([x], x)
        yield name, kernels.rectify, ([x], None)
        yield name, kernels.rectify_backward, ([x], mask, [64])
        yield f"{name}, two", kernels.rectify_backward, ([x, x], mask, [64])
        geometry = Geometry((3, 3), (2, 2), (0, 0), (1, 1), ceil_mode=True)
        y = x[:, :, :28, :28].contiguous(memory_format=torch.channels_last)
        place = torch.empty_like(y, dtype=torch.uint8)
        yield name, kernels.max_pool, (x, geometry, False)
        yield f"{name}, rectified", kernels.max_pool, (x, geometry, True)
        yield name, kernels.max_pool_backward, (y, place, geometry, [56, 56])


def usage(binary: bytes) -> tuple[int, int]:
    """Returns the registers and bytes of local memory (that is, spills) per thread of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(
            f"cuobjdump printed no register usage, expected a line with REG, STACK and LOCAL: {text}"
        )
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


def main() -> None:
    driver, compiled = Driver(), []
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, **options: Any) -> None:
        compiled.append(run(self, *arguments, **{**options, "warmup": True}))

    # Kernels are configured by the architecture's own row of the table.
    _launch.device_key = lambda device: f"sm_{driver.architecture}"
    triton.runtime.driver.set_active(driver)
    JITFunction.run = compile_only
    print(f"torch {torch.__version__}, triton {triton.__version__}; registers + bytes spilled, per thread")
    print(f"{'kernel':<24} {'variant':<20}" + "".join(f"{f'sm_{a}':>12}" for a in ARCHITECTURES))
    spilled = 0
    for variant, op, arguments in launches():
        rows: dict[str, list[tuple[int, int]]] = {}
        for driver.architecture in ARCHITECTURES:
            compiled.clear()
            op(*arguments)
            for kernel in compiled:
                rows.setdefault(kernel.metadata.name, []).append(usage(kernel.asm["cubin"]))
        for name, found in rows.items():
            cells = "".join(f"{f'{registers} + {spill}':>12}" for registers, spill in found)
            print(f"{name:<24} {variant:<20}{cells}")
            spilled += sum(spill for _, spill in found)
    sys.exit(1 if spilled else 0)


if __name__ == "__main__":
    main()
