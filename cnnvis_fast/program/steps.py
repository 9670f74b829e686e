"""What a program is made of: steps, each with its own way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Step:
    """One step: how a node's value is made of others, and how its gradient becomes theirs.

    The way there runs `forward(*inputs, *arguments, **options)` and yields the value, or, where something is
    kept for the way back, a tuple of the value and `kept` more. The way back runs `backward(gradient, *what
    was kept, *backward_arguments, **backward_options)` and yields one gradient for each input: alone if there
    is one input, else in a sequence. Functions are those of a module, so that they can be named in code.

    Attributes:
        node: whose value this is.
        inputs: nodes that get a gradient.
        kept: how many values are kept for the way back.
        pairs: how many gradients `backward` adds up by itself, 1 or 2; of two it is given a list.
        rectified: whether the value is a rectifier's, through which the way back goes first; its mask is the
            last of what is kept.
        linear: both ways at once under a linear function, `linear(input, maps, *arguments, **options)` to the
            input's gradient of sum(maps * value) and these sums; None where it has no such thing.
        explicit: False if autograd finds the way back.
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
    """What a rule may look at.

    Attributes:
        module: the graph that a program is made of.
        values: per node what it yields for the example: a shape for a tensor of floats that depends on the
            pictures, a list of shapes and None for several values, None for anything else.
        dtype: of the network.
        device: of the network.
        packed: whether weights may be laid out for the libraries ahead of time.
        products: whether the network is in bfloat16 and the project's kernels have the fastest such products.
        exact: the network in float32, whose weights are turned and then rounded; None takes the module's.
    """

    module: fx.GraphModule
    values: dict[fx.Node, Any]
    dtype: torch.dtype
    device: torch.device
    packed: bool
    products: bool = False
    exact: nn.Module | None = None

    def active(self, node: Any) -> bool:
        """Whether a node gets a gradient."""
        return isinstance(node, fx.Node) and self.values.get(node) is not None

    def shape(self, node: fx.Node) -> torch.Size:
        """Of a node that is one tensor, for the example."""
        shape: torch.Size = self.values[node]
        return shape

    def called(self, node: Any) -> nn.Module | None:
        """The module that a node runs, if its class alone says what it does."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        module = self.module.get_submodule(str(node.target))
        return None if module._forward_hooks or module._forward_pre_hooks else module

    def parameter(self, node: Any, name: str) -> Tensor:
        """Of the module that a node runs, in float32 where that is at hand."""
        module = self.module if self.exact is None else self.exact
        return module.get_parameter(f"{node.target}.{name}").detach()


def bound(node: Any, **defaults: Any) -> list[Any]:
    """The arguments of a call behind its first, by place or by name, with what is not given by default."""
    given = dict(zip(defaults, node.args[1:], strict=False)) | dict(node.kwargs)
    return [given.get(name, default) for name, default in defaults.items()]


def pair(value: Any) -> list[int]:
    """A size for both axes."""
    first, second = (value, value) if isinstance(value, int) else (value if len(value) == 2 else value * 2)
    return [int(first), int(second)]


def batched(dy: Tensor, shape: tuple[int, ...]) -> list[int]:
    """The shape of the example's tensor for as many pictures as there are."""
    return [dy.shape[0], *shape[1:]]


def stand_in(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor that lends its shape and takes no memory."""
    return dy.new_empty(()).expand(batched(dy, shape))
