"""A network as an explicit program: a forward pass, and a backward pass to the gradient of the pictures.

Autograd keeps what the gradients of weights would need. Here weights are frozen, so the backward pass needs
masks and places of maxima, a bit or a byte each, and little else. The graph is walked once and written as two
straight pieces of code, `Program.forward_pass.code` and `Program.backward_pass.code`, that call PyTorch and
our kernels. Before that, rectifiers move to where they cost least (`rewrites`). A node that no rule knows
runs through `torch.func.vjp`; `Program.report` names those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from ..errors import InputError
from ..kernels import ops
from ..kernels.backends import multiplies_bfloat16
from .coverage import autograd_segments, step_name
from .emit import Emitted, emit
from .peak_memory import peak_bytes
from .rewrites import rewrite
from .rules.table import known_modules
from .steps import Scene
from .tracing import shapes_of

__all__ = ["Program", "ProgramReport", "autograd_segments", "known_modules", "make_program"]


@dataclass(frozen=True)
class ProgramReport:
    """What a program is made of.

    Attributes:
        steps: how many steps have an explicit backward pass.
        through_autograd: names of the graph's nodes that run through autograd.
    """

    steps: int
    through_autograd: list[str]

    def __str__(self) -> str:
        if not self.through_autograd:
            return f"{self.steps} steps, none through autograd"
        return f"{self.steps} steps, and through autograd: {', '.join(self.through_autograd)}"


class Program(nn.Module):
    """The forward and the backward pass of a network, for any number of pictures of one size.

    Attributes:
        forward_pass: takes pictures to (output, list of kept values).
        backward_pass: takes (gradient of the output, that list, which it empties) to the pictures' gradient.
        shape: [C, H, W] of a picture.
    """

    def __init__(self, emitted: Emitted, shape: torch.Size) -> None:
        super().__init__()
        self.forward_pass, self.backward_pass = emitted.forward, emitted.backward
        self.shape = tuple(shape[1:])
        self._linear = emitted.linear
        names = [step_name(step.node) for step in emitted.steps if not step.explicit]
        self._report = ProgramReport(sum(step.explicit for step in emitted.steps), names)

    def forward(self, x: Tensor) -> tuple[Any, Callable[[Any], Tensor]]:
        """Returns the output, and a function from its gradient to the pictures' gradient; it runs once.

        Args:
            x: pictures as the network reads them [B, C, H, W], with the example's C, H and W.

        Raises:
            ValueError: the pictures have another size.
        """
        self._check(x)
        output, kept = self.forward_pass(x)

        def backward(gradient: Any) -> Tensor:
            return self.backward_pass(gradient, kept)

        return output, backward

    def linear(self, x: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the gradient and the value of a linear function of an output that is one tensor.

        Args:
            x: pictures as the network reads them [B, C, H, W], with the example's C, H and W.
            maps: coefficients of the function, like the output.

        Returns:
            The gradient of sum(maps * output), like x, and the sums [B], float32 at least.

        Raises:
            ValueError: the pictures have another size.
        """
        if self._linear is None:
            output, backward = self(x)
            return backward(maps), ops.dot(output, maps)
        self._check(x)
        gradient, sums = self._linear(x, maps)
        return gradient, sums

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"`x` must be pictures of {self.shape}, got {tuple(x.shape[1:])}")

    def bytes_per_picture(self, example: Tensor) -> int:
        """Returns the peak memory for tensors in both passes of one picture, itself included.

        `linear` may take less.

        Args:
            example: one picture as the network reads it [1, C, H, W].
        """

        def both_passes() -> None:
            x = example.clone()
            output, backward = self(x)
            backward(tree_map(torch.zeros_like, output))

        return peak_bytes(both_passes)

    def report(self) -> ProgramReport:
        """Returns how many steps are explicit and which run through autograd."""
        return self._report


def make_program(
    module: nn.Module, example: Tensor, packed: bool | None = None, exact: nn.Module | None = None
) -> Program:
    """Writes a network's program.

    Args:
        module: network of one input that `torch.fx` can trace, in eval mode; it is not changed. The program
            shares its weights, except for those that are laid out ahead of time.
        example: at least one picture as the network reads it [B, C, H, W], in its dtype on its device.
        packed: whether weights are laid out ahead of time, for oneDNN's convolutions, which `torch.compile`
            cannot take, and in bfloat16 for ours, which then include rectifiers and poolings; None does so
            wherever the library can.
        exact: the same network in float32 on the CPU: its weights are transformed and then rounded, once.

    Raises:
        InputError: the module cannot be traced, or its output does not depend on the picture.
    """
    graph_module = _traced(module)
    rewrite(graph_module)
    values = shapes_of(graph_module, torch.cat([example, example])[:2])
    able = _can_pack(example)
    packed = able if packed is None else packed and able
    fast = packed and example.dtype == torch.bfloat16 and multiplies_bfloat16(example)
    scene = Scene(graph_module, values, example.dtype, example.device, packed, fast, exact)
    output = next(node for node in graph_module.graph.nodes if node.op == "output").args[0]
    outputs: Sequence[Any] = output if isinstance(output, tuple | list) else [output]
    if not any(scene.active(node) for node in outputs):
        raise InputError("the network's output does not depend on the picture: pick another layer")
    with torch.no_grad():
        return Program(emit(scene), example.shape)


def _traced(module: nn.Module) -> fx.GraphModule:
    graph = fx.Tracer().trace(module)
    traced = fx.GraphModule(module, graph)
    traced.graph.eliminate_dead_code()
    return traced


def _can_pack(x: Tensor) -> bool:
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    native: dict[torch.dtype, Any] = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return x.dtype in native and bool(native[x.dtype]())
