"""The memory that a picture takes on its way through a network, known before it is taken."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import InputError
from ..program import Program
from .probe import evaluating

_COPIES = 3  # of every activation that live at once: the value, its gradient, what autograd keeps


class _Done(Exception):
    """Stops a forward pass at the target."""


def check_fits(
    model: nn.Module,
    channels: int,
    size: int,
    layer: str | None = None,
    gradient: bool = False,
    most: int | None = None,
) -> None:
    """Refuses a size at which one picture alone takes more memory than the machine has.

    Args:
        model: the network.
        channels: of its input.
        size: side of the picture in pixels.
        layer: where the pass ends; None is the network's output.
        gradient: whether the pass is to be differentiated.
        most: bytes that it may take although more are free; None for no such limit.

    Raises:
        InputError: it does not fit.
    """
    elements = _activations(model, channels, size, layer)
    room = _available()
    if not elements or room is None:
        return  # a network that does not run without numbers: that it does with them is found out later
    room = room if most is None else min(room, most)
    needed = 4 * (_COPIES * sum(elements) if gradient else 2 * max(elements))
    if needed > room:
        raise InputError(
            f"one picture of {size} pixels takes {needed / 1e9:.1f} GB on its way through "
            f"{type(model).__name__}, and {room / 1e9:.1f} GB are to be had: pass a smaller size"
        )


def _activations(model: nn.Module, channels: int, size: int, layer: str | None) -> list[int]:
    """Elements of all outputs on the way, by a pass that computes shapes alone; [] where there is none."""
    found: list[int] = []
    target = dict(model.named_modules()).get(layer or "")

    def count(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not list(module.children()):
            found.append(output.numel())
        if module is target and module is not model:
            raise _Done

    handles = [module.register_forward_hook(count) for module in model.modules()]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shadow = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    dtype = next((value.dtype for value in model.parameters()), torch.float32)
    picture = torch.empty(1, channels, size, size, device="meta", dtype=dtype)
    try:
        with evaluating(model):
            functional_call(model, shadow, (picture,))
    except _Done:
        pass
    except Exception:  # any exception: the user's code may want numbers
        return []
    finally:
        for handle in handles:
            handle.remove()
    return found


def _available() -> int | None:
    """Bytes of main memory that can be had, as Linux tells; None elsewhere."""
    amounts = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        amounts.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        used, limit = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("current", "max"))
        amounts.append(int(limit) - int(used))
    return min(amounts, default=None)


_STATE = 6  # float32 tensors of a picture's size beside the network: parameters, moments, render and adjoints


def bytes_under_autograd(module: nn.Module, example: Tensor, dtype: torch.dtype) -> int:
    """Memory that one picture takes there and back, from the sizes of all modules' outputs.

    Args:
        module: the network as it is on the CPU.
        example: one picture as it reads it [1, C, H, W].
        dtype: that it will run in.
    """
    elements = 3 * example.numel()
    handles = []

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal elements
        elements += output.numel() if isinstance(output, Tensor) else 0

    for child in module.modules():
        if not list(child.children()):
            handles.append(child.register_forward_hook(count))
    with torch.no_grad():
        module(example.clone())
    for handle in handles:
        handle.remove()
    return elements * dtype.itemsize * _COPIES


def bytes_of_program(program: Program, example: Tensor) -> int:
    """The same with a program, and what the loop holds beside it; `example` as the program reads it."""
    return program.bytes_per_picture(example) + bytes_of_state(example.numel())


def bytes_of_state(elements: int) -> int:
    """What the loop holds beside the network, of so many values of a picture."""
    return _STATE * 4 * elements
