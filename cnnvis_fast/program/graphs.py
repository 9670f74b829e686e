"""What each node of a graph yields: shapes of what depends on the pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx


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
