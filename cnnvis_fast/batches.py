"""How many pictures run together, by a rule that never looks at how many were asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .program import Program

_CPU_BATCH, _GPU_BATCH = 4, 64  # on CPUs more is no faster (bench/NOTES.md) and pads more
_CPU_BYTES, _GPU_BYTES = 2 * 2**30, 16 * 2**30
_COPIES = 3  # of every activation that live at once: the value, its gradient, what autograd keeps
_STATE = 6  # float32 tensors of a picture's size beside the network: parameters, moments, render and adjoints


def batch_rule(device: torch.device, picture_bytes: int) -> int:
    """The largest power of two up to a limit that fits into a budget, at least 1."""
    limit, budget = (_GPU_BATCH, _GPU_BYTES) if device.type == "cuda" else (_CPU_BATCH, _CPU_BYTES)
    batch = limit
    while batch > 1 and batch * picture_bytes > budget:
        batch //= 2
    return batch


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
