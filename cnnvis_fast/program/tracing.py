"""Graphs of networks: where each module ends in one, and what each node yields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn


class EndsTracer(fx.Tracer):
    """Remembers what each module yields where it runs first.

    Args:
        whole: modules that stay in one piece.
    """

    def __init__(self, whole: Sequence[nn.Module | None] = ()) -> None:
        super().__init__()
        self.whole = whole
        # By identity, since a module may bear several names.
        self.ends: dict[nn.Module | None, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See `fx.Tracer`."""
        return any(m is target for target in self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """See `fx.Tracer`."""
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.ends.setdefault(m, result.node)
        return result


def shapes_of(module: fx.GraphModule, example: Tensor) -> dict[fx.Node, Any]:
    """`Scene.values` of a graph for some pictures [B, C, H, W]."""
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
