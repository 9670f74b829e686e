"""Chooses the backend that runs an op: the best for the tensors at hand, or the one that was requested."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import cpu, reference, triton

NAMES = ("auto", "reference", "cpu-avx512", "cpu-avx2", "cpu-baseline", "triton")
"""What `using` takes: plain PyTorch, C++ compiled for an instruction set, Triton."""

# Triton has no kernel of these and leaves them to plain PyTorch, that is to the library, until kernels were
# measured on GPUs. Programs use all but the first on CPUs only.
_PLAIN_ON_GPUS = frozenset(
    (
        *("input_gradient", "stem_convolution", "stem_gradient", "stem_pool", "stem_pool_backward"),
        *("winograd", "winograd_pooled", "winograd_unpooled", "pointwise"),
    )
)

_requested: ContextVar[str] = ContextVar("cnnvis_fast_kernels", default="auto")


@dataclass(frozen=True)
class Kernels:
    """The ops of one backend, with the arguments that `ops` documents and has checked."""

    render: Callable[..., Tensor]
    render_backward: Callable[..., Tensor]
    ascend_: Callable[..., Tensor]
    dot: Callable[..., Tensor]
    restrain: Callable[..., Tensor]
    rectify: Callable[..., tuple[Tensor, Tensor]]
    positive: Callable[..., Tensor]
    rectify_backward: Callable[..., list[Tensor]]
    max_pool: Callable[..., tuple[Tensor, Tensor]]
    max_pool_backward: Callable[..., Tensor]
    input_gradient: Callable[..., Tensor]
    stem_convolution: Callable[..., list[Tensor]]
    stem_gradient: Callable[..., list[Tensor]]
    stem_pool: Callable[..., tuple[Tensor, Tensor]]
    stem_pool_backward: Callable[..., Tensor]
    winograd: Callable[..., list[Tensor]]
    winograd_pooled: Callable[..., tuple[Tensor, Tensor]]
    winograd_unpooled: Callable[..., Tensor]
    pointwise: Callable[..., list[Tensor]]


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Runs the ops of this thread on one backend while open; they fail where it cannot take them.

    Args:
        name: one of `NAMES`; "auto" is the default outside of this.

    Raises:
        ValueError: the name is not one of them.
    """
    if name not in NAMES:
        raise ValueError(f"`kernels` must be one of {', '.join(NAMES)}, got {name!r}")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


@functools.cache
def _automatic_on_cpu(dtype: torch.dtype, channels: int) -> str:
    """Caches what every call of an op asks, since the answer never changes."""
    return _first_of([f"cpu-{level}" for level in cpu.levels()], torch.device("cpu"), dtype, channels)


def _first_of(names: list[str], device: torch.device, dtype: torch.dtype, channels: int) -> str:
    takes = (name for name in names if why_not(name, device, dtype, channels) is None)
    return next(takes, "reference")


def automatic(device: torch.device, dtype: torch.dtype = torch.float32, channels: int = 3) -> str:
    """Returns what "auto" means for pictures on a device: compiled kernels where there are any."""
    if device.type == "cpu":
        return _automatic_on_cpu(dtype, channels)
    return _first_of(["triton"] if device.type == "cuda" else [], device, dtype, channels)


def why_reference(device: torch.device, channels: int = 3) -> str | None:
    """Returns in a sentence why "auto" means plain PyTorch on a device; None where it does not."""
    if automatic(device, channels=channels) != "reference":
        return None
    if device.type not in ("cpu", "cuda"):
        return f"there are no compiled kernels for {device}"
    return why_not("triton" if device.type == "cuda" else "cpu-baseline", device, channels=channels)


def why_not(
    name: str, device: torch.device, dtype: torch.dtype = torch.float32, channels: int = 3
) -> str | None:
    """Returns in a sentence why a backend cannot take such pictures; None if it can."""
    if name in ("auto", "reference"):
        return None
    if dtype != torch.float32:
        return f"the kernels {name} take float32 parameters, got {dtype}: use reference or auto"
    if name == "triton":
        return _why_not_triton(device)
    level = name.removeprefix("cpu-")
    if device.type != "cpu":
        return f"the kernels {name} are for the CPU, not for {device}: use triton, reference or auto"
    if cpu.why_unavailable() is not None:
        return cpu.why_unavailable()
    if level not in cpu.levels():
        return f"this CPU has no {level}: use {', '.join(f'cpu-{known}' for known in cpu.levels())} or auto"
    if channels > cpu.MOST_CHANNELS:
        return (
            f"the kernels {name} take up to {cpu.MOST_CHANNELS} channels, got {channels}: "
            "use reference or auto"
        )
    return None


def _why_not_triton(device: torch.device) -> str | None:
    if reason := triton.why_unavailable():
        return reason
    if device.type != "cuda" and not triton.interpreted():
        return f"the kernels triton are for CUDA devices, not for {device}: use auto or reference"
    return None


def kernels_for(z: Tensor, channels: int = 1) -> Kernels:
    """Returns the ops of the backend that takes this tensor.

    Raises:
        RuntimeError: another backend was requested, which cannot take it.
    """
    name = _requested.get()
    if name == "auto":
        name = automatic(z.device, z.dtype, channels)
    elif reason := why_not(name, z.device, z.dtype, channels):
        raise RuntimeError(reason)
    return _implementation(name)


def network_kernels_for(x: Tensor) -> Kernels:
    """Returns the ops of the backend that takes a tensor inside a network: any channels, bfloat16 too.

    Raises:
        RuntimeError: another backend was requested, which cannot take it.
    """
    return _implementation(_name_in_network(x))


def multiplies_bfloat16(x: Tensor) -> bool:
    """Returns whether the backend of a tensor inside a network multiplies bfloat16 as fast as the CPU can.

    Raises:
        RuntimeError: another backend was requested, which cannot take it.
    """
    name = _name_in_network(x)
    return name.startswith("cpu-") and cpu.multiplies_bfloat16(name.removeprefix("cpu-"))


def _name_in_network(x: Tensor) -> str:
    dtype = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
    name = _requested.get()
    if name == "auto":
        name = automatic(x.device, dtype, 1)
    elif reason := why_not(name, x.device, dtype, 1):
        raise RuntimeError(reason)
    return name


@functools.cache
def _implementation(name: str) -> Kernels:
    return Kernels(*(_kernel(name, field.name) for field in dataclasses.fields(Kernels)))


def _kernel(name: str, op: str) -> Callable[..., Any]:
    if name.startswith("cpu-"):
        return functools.partial(getattr(cpu, op), name.removeprefix("cpu-"))
    found: Any = triton if name == "triton" and op not in _PLAIN_ON_GPUS else reference
    kernel: Callable[..., Any] = getattr(found, op)
    return kernel
