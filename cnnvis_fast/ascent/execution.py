"""The network as it runs: in the working dtype on the device, under autograd or as a program."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..config import Config
from ..errors import InputError, first_line
from ..kernels import backends
from ..networks import trunk as trunks
from ..networks.memory import bytes_of_program, bytes_under_autograd
from ..networks.trunk import DTYPES, Trunk
from ..objectives.readout import Asked, Readout
from ..program import Program, make_program


def working_copy(
    trunk: Trunk,
    objective: Readout,
    sample: Sequence[Asked],
    example: Tensor,
    config: Config,
    name: str,
    may_change: bool,
) -> tuple[nn.Module, Config]:
    """The trunk in the working dtype on the device, tried once; float32 where bfloat16 was only our idea."""
    device, dtype = torch.device(config.device), DTYPES[config.dtype]
    module = trunks.to_device(trunk, dtype, device)
    trouble = _trouble(module, objective, sample, example.to(device, dtype))
    if trouble and may_change and dtype != torch.float32:
        warnings.warn(f"{name} does not run in {config.dtype} ({trouble}): using float32", stacklevel=5)
        config = dataclasses.replace(config, dtype="float32")
        return working_copy(trunk, objective, sample, example, config, name, may_change=False)
    if trouble:
        raise InputError(f"{name} does not run in {config.dtype} on {device} ({trouble}): try another dtype")
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        warnings.warn(
            f"{name} normalizes with each batch's own statistics: a picture depends on those beside it",
            stacklevel=5,
        )
    return module, config


def program_of(module: nn.Module, example: Tensor, config: Config, exact: nn.Module) -> Program:
    """The working copy as a program; `exact` is the trunk that it was made of."""
    with backends.using(config.kernels):
        return make_program(module, _typed(example, config), not config.compile, exact)


def working_program(
    module: nn.Module, example: Tensor, config: Config, exact: nn.Module, name: str, may_do_without: bool
) -> Program | None:
    """The same, tried once; None, with a warning, where it was only our idea and does not run."""
    if not may_do_without:
        return program_of(module, example, config, exact)
    try:
        program = program_of(module, example, config, exact)
        with torch.no_grad(), backends.using(config.kernels):
            output, back = program(_typed(example, config))
            back(tree_map(torch.zeros_like, output))
    except Exception as error:  # any exception: this is the user's network
        warnings.warn(f"{name} does not run as a program ({first_line(error)}): using autograd", stacklevel=5)
        return None
    return program


def picture_bytes(trunk: Trunk, program: Program | None, example: Tensor, config: Config) -> int:
    """Memory that one picture takes in the loop; where a window of it runs, `example` is that."""
    size = int(config.size or 0)
    if program is None:
        return bytes_under_autograd(trunk.module, example, DTYPES[config.dtype], size)
    with backends.using(config.kernels):
        return bytes_of_program(program, _typed(example, config), size)


def _typed(example: Tensor, config: Config) -> Tensor:
    return example.to(config.device, DTYPES[config.dtype]).contiguous(memory_format=torch.channels_last)


def _trouble(module: nn.Module, objective: Readout, sample: Sequence[Asked], x: Tensor) -> str | None:
    """Why the working copy yields no gradient on one picture (or group); None if it does."""
    selection = objective.select(sample, x.device)
    x = x.repeat(len(sample), 1, 1, 1)
    try:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            torch.func.grad(lambda x: objective.ascended(module(x), *selection)[0].sum())(x)
    except Exception as error:  # any exception: this is the user's network
        return first_line(error)
    return None
