"""Joins neighbors in a program's code that one kernel runs in one pass into one call.

A convolution by Winograd's algorithm already holds what the backward pass of a rectifier, or a max pooling
in windows of 2 x 2, needs: either would read and write a layer's maps once more.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from ..kernels import ops
from ..kernels.geometry import TILES, TILES_BEYOND
from .functions.activations import rectify_backward
from .functions.convolutions import masked_winograd, winograd_convolution


def join_forward(graph: fx.Graph) -> None:
    """Joins, in the forward pass, poolings with the convolutions that they pool."""
    for node in list(graph.nodes):
        before = _only_read_here(node, ops.max_pool, winograd_convolution)
        if before is None or not _in_tiles(node):
            continue
        options = {"ceil_mode": node.kwargs["geometry"].ceil_mode, "rectified": node.kwargs["rectified"]}
        _become(node, ops.winograd_pooled, before.args, before.kwargs | options)
        graph.erase_node(before)


def join_backward(graph: fx.Graph) -> None:
    """Joins, in the backward pass, convolutions with the rectifier or pooling before them."""
    for node in list(graph.nodes):
        before = _only_read_here(node, winograd_convolution, rectify_backward)
        if before is not None and len(before.args[0]) == 1:
            (gradient,), mask, _ = before.args
            _become(node, masked_winograd, (gradient, mask, *node.args[1:]), node.kwargs)
            graph.erase_node(before)
        before = _only_read_here(node, winograd_convolution, ops.max_pool_backward)
        if before is not None and _in_tiles(before):
            (dy, place), (_, weight, _) = before.args, node.args
            options = node.kwargs | {"size": before.kwargs["size"]}
            _become(node, ops.winograd_unpooled, (dy, place, weight), options)
            graph.erase_node(before)


def _only_read_here(node: Any, function: Any, before: Any) -> Any:
    """Returns the first argument of a call of `function` if it calls `before` and nothing else reads it."""
    if node.op != "call_function" or node.target is not function:
        return None
    first = node.args[0]
    fits = isinstance(first, fx.Node) and first.op == "call_function" and first.target is before
    return first if fits and len(first.users) == 1 else None


def _in_tiles(pooling: Any) -> bool:
    return pooling.kwargs["geometry"] in (TILES, TILES_BEYOND)


def _become(node: Any, function: Any, arguments: Any, options: Any) -> None:
    node.target, node.args, node.kwargs = function, tuple(arguments), dict(options)
