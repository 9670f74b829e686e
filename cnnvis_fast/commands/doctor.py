"""The command `doctor`: shows what this machine offers, in versions, devices and kernels."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_doctor(commands: Any) -> None:
    """Adds the command `doctor`."""
    parser = commands.add_parser("doctor", help="show versions, devices and kernel backends")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Prints one line per fact, or all of them as JSON."""
    found = facts()
    lines = "\n".join(f"{name:<14} {value}" for name, value in found)
    print(json.dumps(dict(found), indent=2) if options.json else lines)
    return 0


def facts() -> list[tuple[str, str]]:
    """Returns versions, devices, kernel backends and what "auto" means here, as names and values."""
    import importlib.metadata
    import platform

    import torch

    from ..ascent.allocator import kept_buffers
    from ..ascent.devices import resolve_config
    from ..config import Config
    from ..kernels import backends, ops
    from ..networks.preprocessing import Source
    from ..program import known_modules

    found = [("python", f"{sys.version.split()[0]} on {platform.system()} {platform.machine()}")]
    for name in ("cnnvis_fast", "torch", "torchvision", "triton", "numpy", "pillow"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        found.append((name, version))
    found.append(("cpu", f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found += [(f"cuda:{index}", torch.cuda.get_device_name(index)) for index in range(count)]
    if not count:
        found.append(("cuda", "no device found"))
    auto = resolve_config(Config(), Source("", "", (0.0,), (1.0,), 224))
    found.append(
        (
            "auto",
            f"device {auto.device}, network in {auto.dtype}, compile {auto.compile}, program {auto.program}",
        )
    )
    modules = ", ".join(known_modules())
    found.append(("program", f"input gradients of its own: {modules}; autograd runs the rest, see `layers`"))
    with kept_buffers() as kept:
        found.append(("buffers", "kept between steps" if kept else "left to the C library (no mallopt)"))
    found.append(("extension", _extension()))
    names = ", ".join(op._qualname.removeprefix("cnnvis_fast::") for op in ops.OPS)
    for device in ("cpu", "cuda") if count else ("cpu",):
        reason = backends.why_reference(torch.device(device))
        chosen = backends.automatic(torch.device(device)) + (f" ({reason})" if reason else "")
        found.append(("kernels" if device == "cpu" else "kernels cuda", f"{names} on {device}: {chosen}"))
    return found


def _extension() -> str:
    from ..kernels import cpu

    if reason := cpu.why_unavailable():
        return reason
    return ", ".join(f"{name} {_words(value)}" for name, value in cpu.build_info().items())


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
