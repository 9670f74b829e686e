"""The passes of a node that no rule knows, through `torch.func.vjp`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def through_autograd(*values: Any, function: Any, count: int) -> tuple[Any, Any, Any]:
    """Runs a segment; returns its result, autograd's backward function, and the shapes of several results.

    Args:
        values: inputs of the segment, those that get a gradient first.
        function: the segment.
        count: how many inputs get a gradient.

    Returns:
        The result; the function from its gradient to those of the inputs; and None where the result is one
        tensor, else the shape of each value of the result, None for one without a gradient.
    """
    several: list[Any] = []

    def run(*inputs: Tensor) -> Any:
        outcome = function(*inputs, *values[count:])
        if isinstance(outcome, Tensor):
            return outcome
        several.extend(outcome)
        return tuple(part for part in outcome if _has_gradient(part))

    result: Any = torch.func.vjp(run, *values[:count])
    found, pullback = result
    if isinstance(found, Tensor):
        return found, pullback, None
    floats = iter(found)
    shapes = [part.shape if _has_gradient(part) else None for part in several]
    return (
        [next(floats) if shape else part for part, shape in zip(several, shapes, strict=True)],
        pullback,
        shapes,
    )


def _has_gradient(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point()


def through_autograd_backward(gradient: Any, pullback: Any, shapes: Any) -> tuple[Tensor, ...]:
    """Returns the gradients of a segment's inputs; a value that nothing reads has gradient None."""
    if shapes is None:
        return pullback(gradient)
    known = next(part for part in gradient if part is not None)
    pairs = zip(gradient, shapes, strict=True)
    return pullback(tuple(known.new_zeros(shape) if part is None else part for part, shape in pairs if shape))
