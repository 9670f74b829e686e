"""Rules for functions that rearrange, join, add, multiply or average numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..functions import structure
from ..steps import Scene, Step, bound


def reshaped(scene: Scene, node: Any, forward: Any, arguments: tuple[Any, ...]) -> Step | None:
    """Makes a step that gives the same numbers another shape; the batch stays the first axis."""
    x = node.args[0]
    if not scene.active(x) or scene.shape(node)[:1] != scene.shape(x)[:1]:
        return None
    return Step(node, (x,), forward, structure.reshape_backward, arguments, (tuple(scene.shape(x)),))


def flatten(scene: Scene, node: Any) -> Step | None:
    """Merges some axes into one."""
    return reshaped(scene, node, torch.flatten, tuple(bound(node, start_dim=0, end_dim=-1)))


def reshape(scene: Scene, node: Any) -> Step | None:
    """Gives another shape, by `reshape` or `view`."""
    shape = node.args[1:] if len(node.args) > 2 or isinstance(node.args[1], fx.Node | int) else node.args[1]
    return None if node.kwargs else reshaped(scene, node, torch.reshape, (list(shape),))


def unsqueeze(scene: Scene, node: Any) -> Step | None:
    """Adds an axis of length 1."""
    return reshaped(scene, node, torch.unsqueeze, tuple(bound(node, dim=None)))


def squeeze(scene: Scene, node: Any) -> Step | None:
    """Removes one axis of length 1; removing all of them would depend on the batch."""
    (axis,) = bound(node, dim=None)
    return None if axis is None else reshaped(scene, node, torch.squeeze, (axis,))


def _permuted(scene: Scene, node: Any, axes: list[int]) -> Step | None:
    if any(isinstance(axis, fx.Node) for axis in axes) or not scene.active(node.args[0]):
        return None
    axes = [axis % len(scene.shape(node)) for axis in axes]
    inverse = [axes.index(axis) for axis in range(len(axes))]
    return Step(node, (node.args[0],), torch.permute, structure.permute_backward, (axes,), (inverse,))


def permute(scene: Scene, node: Any) -> Step | None:
    """Reorders axes."""
    given: Any = node.kwargs.get("dims", node.args[1:])
    return _permuted(scene, node, list(given[0] if len(given) == 1 else given))


def transpose(scene: Scene, node: Any) -> Step | None:
    """Exchanges two axes."""
    first, second = bound(node, dim0=None, dim1=None)
    axes = list(range(len(scene.shape(node))))
    axes[first], axes[second] = axes[second], axes[first]
    return _permuted(scene, node, axes)


def add(scene: Scene, node: Any) -> Step | None:
    """Adds two values, or a value and what does not depend on the picture."""
    if node.kwargs or len(node.args) != 2 or not _plain(scene, node):
        return None
    x, other = node.args
    if scene.active(x) and scene.active(other):
        shapes = tuple(tuple(scene.shape(term)) for term in (x, other))
        return Step(node, (x, other), structure.add, structure.add_backward, backward_arguments=(shapes,))
    x, other = (x, other) if scene.active(x) else (other, x)
    if scene.shape(x) != scene.shape(node):
        return None
    return Step(node, (x,), structure.add, structure.passed_on, (other,))


def multiply(scene: Scene, node: Any) -> Step | None:
    """Multiplies two values, or a value and what does not depend on the picture."""
    if node.kwargs or len(node.args) != 2 or not _plain(scene, node):
        return None
    x, other = node.args
    if scene.active(x) and scene.active(other):
        shapes = tuple(tuple(scene.shape(factor)) for factor in (x, other))
        multiply, backward = structure.multiply, structure.multiply_backward
        return Step(node, (x, other), multiply, backward, backward_arguments=(shapes,), kept=2)
    x, other = (x, other) if scene.active(x) else (other, x)
    shape = tuple(scene.shape(x))
    return Step(node, (x,), structure.scale, structure.scale_backward, (other,), (other, shape))


def _plain(scene: Scene, node: Any) -> bool:
    """Returns whether no gradient has to be summed over pictures: every value has the axis of pictures."""
    ranks = [len(scene.shape(value)) for value in node.args if scene.active(value)]
    return bool(ranks) and min(ranks) == len(scene.shape(node))


def concatenate(scene: Scene, node: Any) -> Step | None:
    """Concatenates values along any axis but that of pictures."""
    parts: Any = node.args[0] if node.args else node.kwargs.get("tensors")
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(parts, list | tuple) or not all(scene.active(part) for part in parts):
        return None
    if isinstance(axis, fx.Node) or axis % len(scene.shape(node)) == 0:
        return None
    if len(parts) == 1:
        return Step(node, (parts[0],), structure.passed_on, structure.passed_on)
    sizes = [scene.shape(part)[axis] for part in parts]
    options = {"axis": axis}
    return Step(
        node,
        tuple(parts),
        structure.concatenate,
        structure.concatenate_backward,
        backward_arguments=(sizes,),
        options=options,
        backward_options=options,
    )


def mean(scene: Scene, node: Any) -> Step | None:
    """Averages over any axes but that of pictures."""
    axes, keepdim = bound(node, dim=None, keepdim=False)
    if not isinstance(axes, int | list | tuple) or "dtype" in node.kwargs:
        return None
    shape = tuple(scene.shape(node.args[0]))
    places = sorted(axis % len(shape) for axis in ([axes] if isinstance(axes, int) else axes))
    if 0 in places:
        return None
    return Step(
        node,
        (node.args[0],),
        structure.mean,
        structure.mean_backward,
        (places, keepdim),
        (shape, places, keepdim),
    )


def picked(scene: Scene, node: Any) -> Step | None:
    """Picks one of several values; the emitted code assigns its gradient to that value."""
    source, index = node.args
    if not isinstance(scene.values[source], list):
        return None
    return Step(node, (source,), structure.picked, structure.passed_on, (index,))
