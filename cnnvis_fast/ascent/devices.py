"""Resolves every "auto" of a configuration to a device, a dtype or kernels that this machine has."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import torch

from ..config import Config
from ..errors import InputError
from ..kernels import backends
from ..networks.preprocessing import Source


def resolve_config(config: Config, source: Source) -> Config:
    """Replaces every "auto" by what this machine offers, and a missing size by the network's own.

    bfloat16 is chosen where the device multiplies it natively. `compile` "auto" is False: on CPUs the step
    measured faster without it (bench/NOTES.md), on GPUs it is not measured yet. `program` "auto" is True with
    the compiled CPU kernels, where a program is as fast as autograd or faster on every network measured.

    Raises:
        InputError: the device or the kernels asked for are not available.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise InputError(f"`device` must be auto, cpu, cuda or cuda:N, got {config.device!r}") from error
    if kind not in ("cpu", "cuda"):
        raise InputError(f"`device` must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    if kind == "cuda":
        index = torch.device(device).index or 0
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise InputError(
                f"the device {device} does not exist ({torch.cuda.device_count()} CUDA devices found): use "
                "--device cpu, or see `cnnvis-fast doctor`"
            )
    dtype = config.dtype
    if dtype == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else cpu_has_bfloat16()
        )
        dtype = "bfloat16" if native else "float32"
    compiled = False if config.compile == "auto" else config.compile
    kernels = _kernels(config.kernels, torch.device(device), len(source.mean))
    program = kernels.startswith("cpu-") and not compiled
    return dataclasses.replace(
        config,
        device=device,
        dtype=dtype,
        compile=compiled,
        program=program if config.program == "auto" else config.program,
        kernels=kernels,
        size=config.size or source.size,
    )


def _kernels(asked: str, device: torch.device, channels: int) -> str:
    if asked == "auto":
        return backends.automatic(device, channels=channels)
    if reason := backends.why_not(asked, device, channels=channels):
        raise InputError(reason)
    return asked


@cache
def cpu_has_bfloat16() -> bool:
    """Returns whether this CPU multiplies bfloat16 natively (AVX-512 BF16, AMX or Arm's bf16)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = {
        flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
