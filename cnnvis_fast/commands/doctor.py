"""What this machine offers: versions, devices, kernels."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import torch

from ..ascent.allocator import kept_buffers
from ..ascent.devices import resolve_config
from ..config import Config
from ..kernels import backends, cpu, ops
from ..networks.preprocessing import Source
from ..program import known_modules


def report() -> str:
    """Versions, devices, kernel backends and what "auto" means here, a line each."""
    return "\n".join(f"{name:<14} {value}" for name, value in facts())


def facts() -> list[tuple[str, str]]:
    """What `report` prints, as names and values."""
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
    found.append(
        ("program", f"own ways back: {', '.join(known_modules())}; autograd: the rest, see `layers`")
    )
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
    if reason := cpu.why_unavailable():
        return reason
    return ", ".join(f"{name} {_words(value)}" for name, value in cpu.build_info().items())


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
