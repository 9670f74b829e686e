"""Neighbours in a program's code that one kernel does in one pass become one call.

A convolution by Winograd's algorithm has at hand what a rectifier's way back, or a max pooling in windows of
2 x 2, needs: either would read and write a layer's maps once more.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..kernels import ops
from ..kernels.geometry import TILES
from .functions.convolutions import winograd_convolution
from .functions.modules import rectify_backward

_WINDOWS = dict(zip(("kernel", "stride", "padding", "dilation"), TILES, strict=True))


def join_there(graph: fx.Graph) -> None:
    """On the way there: poolings of what was convolved."""
    for node in list(graph.nodes):
        before = _only_read_here(node, ops.max_pool, winograd_convolution)
        if before is None or not _in_tiles(node):
            continue
        options = {key: node.kwargs[key] for key in ("ceil_mode", "rectified")}
        _become(node, ops.winograd_pooled, before.args, before.kwargs | options)
        graph.erase_node(before)


def join_back(graph: fx.Graph) -> None:
    """On the way back: convolutions of gradients that a rectifier or a pooling lets through."""
    for node in list(graph.nodes):
        before = _only_read_here(node, winograd_convolution, rectify_backward)
        if before is not None and len(before.args[0]) == 1:
            (gradient,), mask, _ = before.args
            _become(node, masked_winograd, (gradient, mask, *node.args[1:]), node.kwargs)
            graph.erase_node(before)
        before = _only_read_here(node, winograd_convolution, ops.max_pool_backward)
        if before is not None and _in_tiles(before):
            (dy, place), (_, weight, _) = before.args, node.args
            _become(
                node,
                ops.winograd_unpooled,
                (dy, place, weight),
                node.kwargs | {"size": before.kwargs["size"]},
            )
            graph.erase_node(before)


def _only_read_here(node: Any, function: Any, before: Any) -> Any:
    """What a call of one function reads first, if that is a call of another and read by nobody else."""
    if node.op != "call_function" or node.target is not function:
        return None
    first = node.args[0]
    fits = isinstance(first, fx.Node) and first.op == "call_function" and first.target is before
    return first if fits and len(first.users) == 1 else None


def _in_tiles(pooling: Any) -> bool:
    return all(pooling.kwargs[key] == value for key, value in _WINDOWS.items())


def _become(node: Any, function: Any, arguments: Any, options: Any) -> None:
    node.target, node.args, node.kwargs = function, tuple(arguments), dict(options)


def masked_winograd(
    gradient: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]
) -> Tensor:
    """A convolution of 3 x 3 of what a rectifier lets through."""
    return ops.winograd(gradient, weight, bias, padding, False, mask)[0]
