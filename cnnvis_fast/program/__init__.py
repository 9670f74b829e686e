"""A network as an explicit program: pictures to an output, and a gradient there back to the pictures.

Autograd keeps what the gradients of weights would need. Here weights are frozen, so the way back needs masks
and places of maxima, a bit or a byte each, and little else. The graph is walked once and written down as two
straight pieces of code, `Program.there.code` and `Program.back.code`, that call PyTorch and the project's
kernels. Rectifiers are moved to where they cost least first (`rewrites`). A node that no rule knows runs
through `torch.func.vjp`; `Program.report` names those.
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
        steps: how many steps have a way back of their own.
        through_autograd: what runs through autograd, by the names of the graph's nodes.
    """

    steps: int
    through_autograd: list[str]

    def __str__(self) -> str:
        if not self.through_autograd:
            return f"{self.steps} steps, none through autograd"
        return f"{self.steps} steps, and through autograd: {', '.join(self.through_autograd)}"


class Program(nn.Module):
    """Made by `make_program`; for pictures of one size, any number of them.

    Attributes:
        there: pictures to (output, list of what is kept).
        back: (gradient, that list, which it empties) to the gradient of the pictures.
    """

    def __init__(self, emitted: Emitted, shape: torch.Size) -> None:
        super().__init__()
        self.there, self.back, self.shape = emitted.there, emitted.back, tuple(shape[1:])
        self._linear = emitted.linear
        names = [step_name(step.node) for step in emitted.steps if not step.explicit]
        self._report = ProgramReport(sum(step.explicit for step in emitted.steps), names)

    def forward(self, x: Tensor) -> tuple[Any, Callable[[Any], Tensor]]:
        """The output, and the function that takes a gradient there back to the pictures; it runs once.

        Args:
            x: pictures as the network reads them [B, C, H, W]; C, H and W of the example.

        Raises:
            ValueError: the pictures have another size.
        """
        self._check(x)
        output, kept = self.there(x)

        def back(gradient: Any) -> Tensor:
            return self.back(gradient, kept)

        return output, back

    def linear(self, x: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """A linear function of an output that is one tensor: its gradient with respect to x, and its value.

        Args:
            x: pictures, as above.
            maps: the function's coefficients, like the output.

        Returns:
            The gradient of sum(maps * output), like x, and the sums [B], float32 at least.

        Raises:
            ValueError: the pictures have another size.
        """
        if self._linear is None:
            output, back = self(x)
            return back(maps), ops.dot(output, maps)
        self._check(x)
        gradient, sums = self._linear(x, maps)
        return gradient, sums

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"`x` must be pictures of {self.shape}, got {tuple(x.shape[1:])}")

    def bytes_per_picture(self, example: Tensor) -> int:
        """Memory for tensors, at its peak, that one picture takes there and back, its own included.

        `linear` may take less.

        Args:
            example: one picture as the network reads it [1, C, H, W].
        """

        def there_and_back() -> None:
            x = example.clone()
            output, back = self(x)
            back(tree_map(torch.zeros_like, output))

        return peak_bytes(there_and_back)

    def report(self) -> ProgramReport:
        """What it is made of."""
        return self._report


def make_program(
    module: nn.Module, example: Tensor, packed: bool | None = None, exact: nn.Module | None = None
) -> Program:
    """Writes a network's program.

    Args:
        module: what `torch.fx` can trace, in eval mode, of one input; not changed. The program shares its
            weights, but for those that are laid out ahead of time.
        example: at least one picture as the network reads it [B, C, H, W], in its dtype on its device.
        packed: whether weights are laid out ahead of time, for oneDNN's convolutions, which `torch.compile`
            cannot take, and in bfloat16 for ours, which rectifiers and poolings then become part of; None
            does so wherever the library can.
        exact: the same network in float32 on the CPU: its weights are turned and then rounded, once.

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
