"""Predicts the memory that a picture takes in a network before it is allocated."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import InputError
from ..program import Program
from .hooks import StopForward, hooked, run_until_stopped
from .probe import evaluating

_COPIES = 3  # of every activation that live at once: the value, its gradient, what autograd keeps
_STATE = 6  # float32 tensors of a picture's size beside the network: parameters, moments, render and adjoints


def check_fits(
    model: nn.Module,
    channels: int,
    size: int,
    layer: str | None = None,
    gradient: bool = False,
    most: int | None = None,
) -> None:
    """Refuses a size at which a single picture takes more memory than the machine has free.

    Args:
        model: the network.
        channels: number of input channels.
        size: side of the picture in pixels.
        layer: layer at which the pass ends; None for the network's output.
        gradient: whether the pass will be differentiated.
        most: largest number of bytes allowed even if more are free; None for no such limit.

    Raises:
        InputError: the picture does not fit.
    """
    elements = _activations(model, channels, size, layer)
    available = _available()
    if not elements or available is None:
        return  # the network does not run on the meta device; whether it runs at all is found out later
    available = available if most is None else min(available, most)
    needed = 4 * (_COPIES * sum(elements) if gradient else 2 * max(elements))
    if needed > available:
        raise InputError(
            f"one picture of {size} pixels takes {needed / 1e9:.1f} GB on its way through "
            f"{type(model).__name__}, and {available / 1e9:.1f} GB are available: pass a smaller size"
        )


def bytes_under_autograd(module: nn.Module, example: Tensor, dtype: torch.dtype, size: int) -> int:
    """Returns the memory that one picture takes in the loop if autograd computes its gradient.

    Args:
        module: the trunk on the CPU.
        example: one picture as the trunk reads it [1, C, H, W], or the window of it that runs.
        dtype: dtype that the trunk will run in.
        size: side of the whole picture in pixels.
    """
    elements: list[int] = []
    leaves = {name: child for name, child in module.named_modules() if not list(child.children())}

    def count(_name: str, _module: nn.Module, output: object) -> None:
        elements.append(output.numel() if isinstance(output, Tensor) else 0)

    with hooked(leaves, count), torch.no_grad():
        module(example.clone())
    activations = (3 * example.numel() + sum(elements)) * dtype.itemsize * _COPIES
    return activations + _bytes_of_state(example.shape[1] * size**2 - example.numel())


def bytes_of_program(program: Program, example: Tensor, size: int) -> int:
    """Returns the memory that one picture takes in the loop if a program computes its gradient.

    Args:
        program: the trunk as a program.
        example: one picture as the program reads it [1, C, H, W], or the window of it that runs.
        size: side of the whole picture in pixels.
    """
    return program.bytes_per_picture(example) + _bytes_of_state(example.shape[1] * size**2)


def _bytes_of_state(elements: int) -> int:
    """Returns what the loop holds beside the network for so many values of a picture."""
    return _STATE * 4 * elements


def _activations(model: nn.Module, channels: int, size: int, layer: str | None) -> list[int]:
    """Returns the number of elements of every output up to a layer, from a pass that computes only shapes.

    The list is empty where that pass fails.
    """
    found: list[int] = []
    target = dict(model.named_modules()).get(layer or "")

    def count(_name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and not list(module.children()):
            found.append(output.numel())
        if module is target and module is not model:
            raise StopForward

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shadow = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    dtype = next((value.dtype for value in model.parameters()), torch.float32)
    picture = torch.empty(1, channels, size, size, device="meta", dtype=dtype)
    try:
        with evaluating(model), hooked(dict(model.named_modules()), count):
            run_until_stopped(functional_call, model, shadow, (picture,))
    except Exception:  # any exception: the user's code may need actual values
        return []
    return found


def _available() -> int | None:
    """Returns the bytes of main memory that are available according to Linux; None on other systems."""
    amounts = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        used, limit = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("current", "max"))
        amounts.append(int(limit) - int(used))
    return min(amounts, default=None)
