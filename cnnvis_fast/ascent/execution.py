"""Prepares the network for the loop: in the working dtype on the device, under autograd or as a program."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

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
from .batch_size import batch_rule


@dataclass(frozen=True)
class Task:
    """What the loop will run.

    Attributes:
        network: name of the network, for messages.
        layer: name of the target, for messages.
        trunk: the network up to the target, float32 on the CPU.
        objective: the readout of the trunk's output.
        sample: one whole group of what will be asked for.
        example: a batch of one picture, or its window, as the trunk reads it.
    """

    network: str
    layer: str
    trunk: Trunk
    objective: Readout
    sample: Sequence[Asked]
    example: Tensor


@dataclass(frozen=True)
class Prepared:
    """How the loop will run it.

    Attributes:
        module: the trunk in the working dtype on the device.
        program: the module as a program; None where autograd runs it.
        config: the configuration with the dtype and the kind of execution that work.
        batch: number of pictures that run together: whole groups.
    """

    module: nn.Module
    program: Program | None
    config: Config
    batch: int


def prepare(task: Task, config: Config, asked: Config) -> Prepared:
    """Makes the working copy and its program and tries each once on one picture or group.

    What the user left to "auto" may change, with a warning: float32 replaces a bfloat16 that does not run,
    and autograd replaces a program that does not.

    Args:
        task: what to run.
        config: the resolved configuration.
        asked: the configuration before "auto" was resolved.

    Raises:
        InputError: the network does not run in the dtype, or cannot be a program although that was asked for.
    """
    module, dtype = _working_copy(task, config, may_change=asked.dtype == "auto")
    config = dataclasses.replace(config, dtype=dtype)
    program = _working_program(task, module, config, optional=asked.program == "auto")
    config = dataclasses.replace(config, program=program is not None)
    group = len(task.sample)
    needed = picture_bytes(task.trunk, program, task.example, config)
    batch = config.batch or batch_rule(torch.device(config.device), needed)
    return Prepared(module, program, config, max(1, batch // group) * group)


def build_program(module: nn.Module, example: Tensor, config: Config, exact: nn.Module) -> Program:
    """Returns the working copy as a program; `exact` is the trunk that it was copied from."""
    with backends.using(config.kernels):
        return make_program(module, _typed(example, config), not config.compile, exact)


def picture_bytes(trunk: Trunk, program: Program | None, example: Tensor, config: Config) -> int:
    """Returns the memory in bytes that one picture takes in the loop; `example` may be its window."""
    size = int(config.size or 0)
    if program is None:
        return bytes_under_autograd(trunk.module, example, DTYPES[config.dtype], size)
    with backends.using(config.kernels):
        return bytes_of_program(program, _typed(example, config), size)


def _working_copy(task: Task, config: Config, may_change: bool) -> tuple[nn.Module, str]:
    """Returns the trunk on the device and the dtype that it runs in."""
    dtype = config.dtype
    module, trouble = _tried(task, config, dtype)
    if trouble and may_change and dtype != "float32":
        warnings.warn(f"{task.network} does not run in {dtype} ({trouble}): using float32", stacklevel=6)
        dtype = "float32"
        module, trouble = _tried(task, config, dtype)
    if trouble:
        device = torch.device(config.device)
        raise InputError(f"{task.network} does not run in {dtype} on {device} ({trouble}): try another dtype")
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        warnings.warn(
            f"{task.network} normalizes with each batch's own statistics: a picture depends on the others in "
            "its batch",
            stacklevel=6,
        )
    return module, dtype


def _tried(task: Task, config: Config, dtype: str) -> tuple[nn.Module, str | None]:
    """Returns the trunk in a dtype, and why it yields no gradient on one picture (or group), if so."""
    device, objective = torch.device(config.device), task.objective
    module = trunks.to_device(task.trunk, DTYPES[dtype], device)
    x = task.example.to(device, DTYPES[dtype])
    selection = objective.select(task.sample, x.device)
    x = x.repeat(len(task.sample), 1, 1, 1)
    try:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            torch.func.grad(lambda x: objective.ascended(module(x), *selection)[0].sum())(x)
    except Exception as error:  # any exception: this is the user's network
        return module, first_line(error)
    return module, None


def _working_program(task: Task, module: nn.Module, config: Config, optional: bool) -> Program | None:
    """Returns the module as a program; None where autograd is to run it."""
    if not config.program:
        return None
    if not task.trunk.traced:
        if optional:
            return None
        raise InputError(
            f"{task.network} cannot be traced up to {task.layer}, so it cannot run as a program: drop program"
        )
    if not optional:
        return build_program(module, task.example, config, task.trunk.module)
    try:
        program = build_program(module, task.example, config, task.trunk.module)
        with torch.no_grad(), backends.using(config.kernels):
            output, backward = program(_typed(task.example, config))
            backward(tree_map(torch.zeros_like, output))
    except Exception as error:  # any exception: this is the user's network
        warnings.warn(
            f"{task.network} does not run as a program ({first_line(error)}): using autograd", stacklevel=6
        )
        return None
    return program


def _typed(example: Tensor, config: Config) -> Tensor:
    return example.to(config.device, DTYPES[config.dtype]).contiguous(memory_format=torch.channels_last)
