"""Finds, layer by layer, what of a network a program would run through autograd, without making one."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensorMode

from .rules.table import step_for
from .steps import Scene
from .tracing import EndsTracer, shapes_of


def autograd_segments(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, list[str]]:
    """Returns, per module, the nodes that no rule knows among all that run to reach its output.

    The network runs once, on tensors without values. Rewrites are left out: they give rectifiers and pools
    other names, and a rule that knows a node knows it rewritten too.

    Args:
        model: network in eval mode.
        shape: shape of one picture as the network reads it [1, C, H, W].
        dtype: dtype of the network.

    Returns:
        By dotted module name, the names of the graph's nodes in the order in which they run; the empty name
        stands for the network's output. {} where the network cannot be traced or does not run this way, and
        no entry for a module that yields no single value.
    """
    tracer = EndsTracer()
    try:
        module = fx.GraphModule(model, tracer.trace(model))
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device(_device(model)):
            values = shapes_of(module, torch.empty(2, *shape[1:], dtype=dtype))
    except Exception:  # any exception: tracing runs the user's code on stand-ins for tensors
        return {}
    scene = Scene(module, values, dtype, _device(model), packed=False)
    unknown = {node for node in module.graph.nodes if _unknown(scene, node)}
    below: dict[fx.Node, set[fx.Node]] = {}
    for node in module.graph.nodes:
        below[node] = {node} & unknown
        below[node] = below[node].union(*(below[value] for value in node.all_input_nodes))
    ends = {name: tracer.ends[part] for name, part in model.named_modules() if part in tracer.ends}
    ends[""] = next(node for node in module.graph.nodes if node.op == "output")
    return {
        name: [step_name(node) for node in module.graph.nodes if node in below[end]]
        for name, end in ends.items()
    }


def step_name(node: fx.Node) -> str:
    """Returns the name of the module that a node runs, or else the node's own."""
    return str(node.target) if node.op == "call_module" else node.name


def _unknown(scene: Scene, node: Any) -> bool:
    if node.op in ("placeholder", "output") or not scene.active(node):
        return False
    return not step_for(scene, node).explicit


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
