"""Decides, once per target, how its pictures are made: device, dtype, compilation, batch, schedule."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from . import trunk as trunks
from .config import Config
from .errors import InputError, first_line
from .kernels import backends
from .layers import resolve
from .models import Source, describe
from .objectives import Objective, make_objective
from .parameters import Fourier, Normalized, Pixel, colour_matrix
from .program import Program, make_program
from .trunk import Trunk

_CPU_BATCH, _GPU_BATCH = 4, 64  # on CPUs more is no faster (bench/NOTES.md) and pads more
_CPU_BYTES, _GPU_BYTES = 2 * 2**30, 16 * 2**30
_COPIES = 3  # of every activation that live at once: the value, its gradient, what autograd keeps


@dataclass(frozen=True)
class Plan:
    """All that the loop needs to make pictures of one target.

    Attributes:
        config: with device, dtype, compile, kernels and size settled.
        source: name, weights and preprocessing of the network.
        layer: canonical name of the target.
        trunk: float32 on the CPU; `module` is its working copy.
        module: the trunk in the working dtype on the device.
        objective: of the target.
        parameters: the parameterization.
        color: [C, C], mean and std: [C], on the device.
        batch: pictures that run together; every run is padded to it.
        example: a batch of one picture as the network reads it.
        program: of `module`; None where autograd runs it.
    """

    config: Config
    source: Source
    layer: str
    trunk: Trunk
    module: nn.Module
    objective: Objective
    parameters: Fourier | Pixel | Normalized
    color: Tensor
    mean: Tensor
    std: Tensor
    batch: int
    example: Tensor
    program: Program | None = None

    @property
    def device(self) -> torch.device:
        """Where the loop runs."""
        return torch.device(self.config.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        return DTYPES[self.config.dtype]

    def key(self, channel: int) -> str:
        """Key of all random numbers of one picture."""
        return f"{self.config.seed}/{self.layer}/{channel}"

    def schedule(self) -> list[Tensor]:
        """Per step: rate and Adam's two bias corrections, float32 [B, 3]."""
        config, rows = self.config, []
        for step in range(config.steps):
            done = step / config.steps
            rate = config.rate * (min(1.0, (1 - done) / 0.3 + 0.1) if config.late_decay else 1)
            rows.append((rate, 1 / (1 - config.beta1 ** (step + 1)), 1 / (1 - config.beta2 ** (step + 1))))
        table = torch.tensor(rows, dtype=torch.float64).float().to(self.device)
        return [row.expand(self.batch, 3).contiguous() for row in table]


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def settle(config: Config, source: Source) -> Config:
    """Replaces every "auto" by what this machine offers.

    bfloat16 is chosen where the device multiplies it natively. `compile` "auto" is False: on CPUs the step
    measured faster as it is (bench/NOTES.md), on GPUs it is not measured yet.

    Raises:
        InputError: a device or kernels were asked for that are not there.
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
                f"the device {device} is not there ({torch.cuda.device_count()} CUDA devices found): use "
                "--device cpu, or see `cnnvis-fast doctor`"
            )
    dtype = config.dtype
    if dtype == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else cpu_has_bfloat16()
        )
        dtype = "bfloat16" if native else "float32"
    return dataclasses.replace(
        config,
        device=device,
        dtype=dtype,
        compile=False if config.compile == "auto" else config.compile,
        program=(kind == "cpu" and config.compile is not True)
        if config.program == "auto"
        else config.program,
        kernels=_kernels(config.kernels, torch.device(device), len(source.mean)),
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
    """Whether this CPU multiplies bfloat16 natively (AVX-512 BF16, AMX or Arm's bf16)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = {
        flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def make_plan(model: nn.Module, layer: str, config: Config, source: Source | None = None) -> Plan:
    """Plans the pictures of one target.

    Args:
        model: the network; not changed.
        layer: dotted name, `convN` or `logits`.
        config: from `configure`.
        source: the network's; described anew if not given.

    Raises:
        InputError: the target, the size, the device or the objective does not fit the network.
    """
    source = source or describe(model)
    asked = config
    config = settle(config, source)
    name = resolve(model, layer)
    device = torch.device(config.device)
    _warn_of_reference(asked.kernels, config, device, len(source.mean))
    size, channels = config.size or source.size, len(source.mean)
    example = torch.zeros(1, channels, size, size) + torch.linspace(-1, 1, size)
    trunk = trunks.cut(model, name, example)
    if config.compile and not trunk.traced:
        raise InputError(
            f"{source.name} cannot be traced up to {name}, so it cannot be compiled: drop compile"
        )
    objective = make_objective(config.objective, trunk, config.position, example, name)
    module, config = _working_copy(trunk, objective, example, config, source.name, asked.dtype == "auto")
    mean, std = torch.tensor(source.mean).to(device), torch.tensor(source.std).to(device)
    if config.program and not trunk.traced:
        config = dataclasses.replace(config, program=False)
    return Plan(
        program=_program(module, example, config) if config.program else None,
        config=config,
        source=source,
        layer=name,
        trunk=trunk,
        module=module,
        objective=objective,
        parameters=_parameters(config, size, mean, std),
        color=colour_matrix(channels).to(device),
        mean=mean,
        std=std,
        batch=config.batch or _batch_rule(trunk, example, DTYPES[config.dtype], device),
        example=example,
    )


def _program(module: nn.Module, example: Tensor, config: Config) -> Program:
    x = example.to(config.device, DTYPES[config.dtype]).contiguous(memory_format=torch.channels_last)
    with backends.using(config.kernels):
        return make_program(module, x, packed=not config.compile)


def _parameters(config: Config, size: int, mean: Tensor, std: Tensor) -> Fourier | Pixel | Normalized:
    if config.parameters == "normalized":
        return Normalized(size, mean, std)
    if config.parameters == "pixel":
        return Pixel(len(mean), size, config.noise)
    return Fourier(len(mean), size, config.noise, config.decay, config.amplitude, mean.device)


def _warn_of_reference(asked: str, config: Config, device: torch.device, channels: int) -> None:
    if config.kernels != "reference":
        return
    if asked == "auto" and (reason := backends.why_reference(device, channels)):
        warnings.warn(f"plain PyTorch runs the loop's operations, more slowly: {reason}", stacklevel=4)
    if device.type == "cuda" and config.transforms == "affine":
        warnings.warn(
            "on CUDA devices PyTorch's adjoint of the affine warp sums in no fixed order: pictures may "
            "differ in their last bits from run to run; kernels='triton' repeats itself",
            stacklevel=4,
        )


def _working_copy(
    trunk: Trunk, objective: Objective, example: Tensor, config: Config, name: str, may_change: bool
) -> tuple[nn.Module, Config]:
    """The trunk in the working dtype on the device, tried once; float32 where bfloat16 was only our idea."""
    device, dtype = torch.device(config.device), DTYPES[config.dtype]
    module = trunks.to_device(trunk, dtype, device)
    trouble = _trouble(module, objective, example.to(device, dtype))
    if trouble and may_change and dtype != torch.float32:
        warnings.warn(f"{name} does not run in {config.dtype} ({trouble}): using float32", stacklevel=4)
        config = dataclasses.replace(config, dtype="float32")
        return _working_copy(trunk, objective, example, config, name, may_change=False)
    if trouble:
        raise InputError(f"{name} does not run in {config.dtype} on {device} ({trouble}): try another dtype")
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        warnings.warn(
            f"{name} normalizes with each batch's own statistics: a picture depends on those beside it",
            stacklevel=4,
        )
    return module, config


def _trouble(module: nn.Module, objective: Objective, x: Tensor) -> str | None:
    """Why the working copy yields no gradient on one picture; None if it does."""
    selection = objective.select([0], x.device)
    try:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            torch.func.grad(lambda x: objective.scores(module(x), *selection).sum())(x)
    except Exception as error:  # any exception: this is the user's network
        return first_line(error)
    return None


def _batch_rule(trunk: Trunk, example: Tensor, dtype: torch.dtype, device: torch.device) -> int:
    """The batch as a function of trunk, size, dtype and device alone, never of the number of filters."""
    elements = 3 * example.numel()
    handles = []

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal elements
        elements += output.numel() if isinstance(output, Tensor) else 0

    for module in trunk.module.modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(count))
    with torch.no_grad():
        trunk.module(example.clone())
    for handle in handles:
        handle.remove()
    limit, budget = (_GPU_BATCH, _GPU_BYTES) if device.type == "cuda" else (_CPU_BATCH, _CPU_BYTES)
    fits = budget // (elements * dtype.itemsize * _COPIES)
    batch = limit
    while batch > 1 and batch > fits:
        batch //= 2
    return batch
