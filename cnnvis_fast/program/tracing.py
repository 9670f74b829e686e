"""Graphs of networks: the node where each module ends, and the shapes that each node yields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn


class EndsTracer(fx.Tracer):
    """A tracer that records the node that each module yields where it runs first.

    Args:
        whole: modules that stay one node.
    """

    def __init__(self, whole: Sequence[nn.Module | None] = ()) -> None:
        super().__init__()
        self.whole = whole
        # By identity, since a module may have several names.
        self.ends: dict[nn.Module | None, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Returns whether a module stays one node: those in `whole`, and those that `fx.Tracer` keeps."""
        return any(m is target for target in self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Traces a call of a module, and records its result the first time."""
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.ends.setdefault(m, result.node)
        return result


def shapes_of(module: fx.GraphModule, example: Tensor) -> dict[fx.Node, Any]:
    """Runs a graph on pictures [B, C, H, W] and returns the `Scene.values` of its nodes."""
    values: dict[fx.Node, Any] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            depends = n.op == "placeholder" or any(values[value] is not None for value in n.all_input_nodes)
            values[n] = _shapes(result) if depends else None
            return result

    with torch.no_grad():
        Watch(module).run(example)
    return values


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape if value.is_floating_point() else None
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        shapes = [_shapes(part) for part in value]
        return shapes if any(shape is not None for shape in shapes) else None
    return None
