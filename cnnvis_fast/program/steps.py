"""What a program is made of: steps, each with its own backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Step:
    """How a node's value is computed from its inputs, and their gradients from its gradient.

    The forward pass calls `forward(*inputs, *arguments, **options)`, which returns the value, or, where
    something is kept for the backward pass, a tuple of the value and `kept` more. The backward pass calls
    `backward(gradient, *kept values, *backward_arguments, **backward_options)`, which returns one gradient
    per input: alone if there is one input, else in a sequence. Functions are those of a module, so that code
    can name them.

    Attributes:
        node: node whose value this is.
        inputs: nodes that get a gradient.
        kept: how many values are kept for the backward pass.
        pairs: how many gradients `backward` adds up by itself, 1 or 2; for 2 it takes a list.
        rectified: whether the value is a rectifier's output, so that the gradient passes the rectifier first;
            its mask is the last kept value.
        linear: both passes at once for a linear function: `linear(input, *arguments, maps=maps, **options)`
            returns the input's gradient of sum(maps * value) and these sums; None where there is no such
            function.
        explicit: False if autograd runs the backward pass.
    """

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    backward_arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    backward_options: dict[str, Any] = field(default_factory=dict)
    kept: int = 0
    pairs: int = 1
    rectified: bool = False
    linear: Callable[..., Any] | None = None
    explicit: bool = True


@dataclass(frozen=True)
class Scene:
    """What the rules read: the graph to be written as a program, and what is known about it beforehand.

    Attributes:
        module: the network as a graph.
        values: what each node yields for the example: a shape for a float tensor that depends on the
            pictures, a list of shapes and None for several values, None for anything else.
        dtype: dtype of the network.
        device: device of the network.
        packed: whether weights may be laid out ahead of time as the library reads them.
        products: whether the network is in bfloat16 and our kernels multiply it as fast as the CPU can.
        exact: the network in float32, whose weights are transformed and then rounded; None takes the
            module's.
    """

    module: fx.GraphModule
    values: dict[fx.Node, Any]
    dtype: torch.dtype
    device: torch.device
    packed: bool
    products: bool = False
    exact: nn.Module | None = None

    def active(self, node: Any) -> bool:
        """Returns whether a node gets a gradient."""
        return isinstance(node, fx.Node) and self.values.get(node) is not None

    def shape(self, node: fx.Node) -> torch.Size:
        """Returns the shape of a node's one tensor, for the example."""
        shape: torch.Size = self.values[node]
        return shape

    def called(self, node: Any) -> nn.Module | None:
        """Returns the module that a node runs; None where its hooks may change what its class does."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        module = self.module.get_submodule(str(node.target))
        return None if module._forward_hooks or module._forward_pre_hooks else module

    def parameter(self, node: Any, name: str) -> Tensor:
        """Returns a parameter of the module that a node runs, in float32 where there is such a network."""
        module = self.module if self.exact is None else self.exact
        return module.get_parameter(f"{node.target}.{name}").detach()


def bound(node: Any, **defaults: Any) -> list[Any]:
    """Returns the arguments of a call after its first, given by place, by name or by default."""
    given = dict(zip(defaults, node.args[1:], strict=False)) | dict(node.kwargs)
    return [given.get(name, default) for name, default in defaults.items()]


def pair(value: Any) -> tuple[int, int]:
    """Returns a number for each axis, from one number or two."""
    first, second = (value, value) if isinstance(value, int) else (value if len(value) == 2 else value * 2)
    return int(first), int(second)


def batched(dy: Tensor, shape: tuple[int, ...]) -> list[int]:
    """Returns the shape of the example's tensor with as many pictures as `dy` has."""
    return [dy.shape[0], *shape[1:]]


def stand_in(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Makes a tensor that has only a shape and takes no memory."""
    return dy.new_empty(()).expand(batched(dy, shape))
