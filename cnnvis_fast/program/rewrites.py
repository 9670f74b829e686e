"""Rewrites of a graph that change no value: they move rectifiers to where they cost least.

A rewritten graph still runs as such. Each rewrite looks for chains whose inner values nothing else reads.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from .steps import bound

RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_")
ADDITIONS = (torch.add, operator.add, operator.iadd, "add", "add_")
MAX_POOLS = (torch.max_pool2d, functional.max_pool2d)
CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)


def rectified_concatenation(parts: list[Tensor]) -> Tensor:
    """Rectifies a concatenation of channels."""
    return torch.relu(torch.cat(parts, 1))


def rectified_sum(x: Tensor, other: Tensor) -> Tensor:
    """Rectifies a sum."""
    return torch.relu(x + other)


def rectified_max_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Rectifies the maximum, which is the maximum of the rectified values."""
    return torch.relu(functional.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode))


def rewrite(module: fx.GraphModule) -> None:
    """Applies all rewrites, in place."""
    for rule in (_behind_concatenations, _into_pools, _onto_concatenations, _onto_sums):
        rule(module)
        module.graph.eliminate_dead_code()
    module.recompile()


def is_relu(module: fx.GraphModule, node: Any) -> bool:
    """Returns whether a node is a plain rectifier."""
    if not isinstance(node, fx.Node):
        return False
    return _is(module, node, nn.ReLU) or (
        node.op in ("call_function", "call_method") and node.target in RELUS
    )


def max_pool_arguments(module: fx.GraphModule, node: Any) -> list[Any] | None:
    """Returns kernel, stride, padding, dilation and ceil mode of a max pooling; None for anything else."""
    if _is(module, node, nn.MaxPool2d):
        pool: Any = module.get_submodule(str(node.target))
        found = [pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode]
        return None if pool.return_indices else found
    if node.op == "call_function" and node.target in MAX_POOLS:
        defaults = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
        *found, indices = bound(node, **defaults, return_indices=False)
        return None if indices else found
    return None


def concatenated(node: Any) -> list[fx.Node] | None:
    """Returns the two or more parts of a concatenation along the second axis; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or node.target not in CONCATENATIONS:
        return None
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return list(parts) if axis == 1 and isinstance(parts, list | tuple) and len(parts) > 1 else None


def _is(module: fx.GraphModule, node: Any, kind: type) -> bool:
    if node.op != "call_module":
        return False
    called = module.get_submodule(str(node.target))
    return type(called) is kind and not called._forward_hooks and not called._forward_pre_hooks


def _replace(module: fx.GraphModule, node: Any, function: Any, *arguments: Any) -> None:
    with module.graph.inserting_before(node):
        new = module.graph.call_function(function, arguments)
    node.replace_all_uses_with(new)


def _lone(node: Any) -> bool:
    return isinstance(node, fx.Node) and len(node.users) == 1


def _behind_concatenations(module: fx.GraphModule) -> None:
    """Applies cat(relu(a), relu(b)) = relu(cat(a, b))."""
    for node in list(module.graph.nodes):
        parts = concatenated(node)
        if parts and all(is_relu(module, part) and _lone(part) for part in parts):
            with module.graph.inserting_before(node):
                bare = module.graph.call_function(torch.cat, ([part.args[0] for part in parts], 1))
            _replace(module, node, torch.relu, bare)


def _into_pools(module: fx.GraphModule) -> None:
    """Applies max(relu(x)) = relu(max(x)), to each part of a concatenation by itself: less memory moves."""
    for node in list(module.graph.nodes):
        found = max_pool_arguments(module, node)
        if not found or not is_relu(module, node.args[0]) or not _lone(node.args[0]):
            continue
        x = node.args[0].args[0]
        parts = concatenated(x) if _lone(x) else None
        if parts is None:
            _replace(module, node, rectified_max_pool, x, *found)
            continue
        with module.graph.inserting_before(node):
            pooled = [module.graph.call_function(rectified_max_pool, (part, *found)) for part in parts]
        _replace(module, node, torch.cat, pooled, 1)


def _onto_concatenations(module: fx.GraphModule) -> None:
    """Computes relu(cat(a, b)) in one pass."""
    for node in list(module.graph.nodes):
        if is_relu(module, node) and _lone(node.args[0]) and (parts := concatenated(node.args[0])):
            _replace(module, node, rectified_concatenation, parts)


def _onto_sums(module: fx.GraphModule) -> None:
    """Computes relu(a + b) in one pass."""
    for node in list(module.graph.nodes):
        total: Any = node.args[0] if is_relu(module, node) else None
        if not _lone(total) or total.op == "call_module" or total.target not in ADDITIONS or total.kwargs:
            continue
        if len(total.args) == 2 and all(isinstance(term, fx.Node) for term in total.args):
            _replace(module, node, rectified_sum, *total.args)
