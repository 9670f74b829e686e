"""Forward and backward passes of the modules that a program knows, which the emitted code calls by name.

`name` returns a value, or the value and what its backward pass needs; `name_backward` returns the gradients
of the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...kernels import ops
from ..steps import batched, stand_in

aten = torch.ops.aten


def rectify(x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes relu(x) and its mask."""
    return ops.rectify([x], None)


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: int) -> Tensor:
    """Computes the gradient through one rectifier."""
    return ops.rectify_backward(gradients, mask, [channels])[0]


def rectified_sum(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Computes relu(x + other) and its mask."""
    return ops.rectify([x], other)


def rectified_sum_backward(gradients: list[Tensor], mask: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Gives both terms the same gradient."""
    (dx,) = ops.rectify_backward(gradients, mask, [channels])
    return dx, dx


def rectified_concatenation(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Computes relu(cat(parts)) and its mask."""
    return ops.rectify(list(parts), None)


def rectified_concatenation_backward(
    gradients: list[Tensor], mask: Tensor, channels: list[int]
) -> list[Tensor]:
    """Gives each part its own gradient."""
    return ops.rectify_backward(gradients, mask, channels)


def clamped(x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Limits x to bounds; the result also records where x was within them."""
    y = torch.nn.functional.hardtanh(x, low, high)
    return y, y


def clamped_backward(dy: Tensor, y: Tensor, low: float, high: float) -> Tensor:
    """Passes the gradient where nothing was cut off."""
    return aten.hardtanh_backward(dy, y, low, high)


def leaky(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Multiplies the negative values of x by the slope."""
    return torch.nn.functional.leaky_relu(x, slope), x


def leaky_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    """Multiplies the gradient by the slope where x is negative."""
    return aten.leaky_relu_backward(dy, x, slope, False)


def silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes x sigmoid(x)."""
    return torch.nn.functional.silu(x), x


def silu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Computes the gradient through `silu`."""
    return aten.silu_backward(dy, x)


def gelu(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
    """Computes x times the normal distribution function at x."""
    return torch.nn.functional.gelu(x, approximate=approximate), x


def gelu_backward(dy: Tensor, x: Tensor, approximate: str) -> Tensor:
    """Computes the gradient through `gelu`."""
    return aten.gelu_backward(dy, x, approximate=approximate)


def hardswish(x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes x hardsigmoid(x)."""
    return torch.nn.functional.hardswish(x), x


def hardswish_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Computes the gradient through `hardswish`."""
    return aten.hardswish_backward(dy, x)


def hardsigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes relu6(x + 3) / 6."""
    return torch.nn.functional.hardsigmoid(x), x


def hardsigmoid_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Computes the gradient through `hardsigmoid`."""
    return aten.hardsigmoid_backward(dy, x)


def sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the logistic function, and keeps its value."""
    y = torch.sigmoid(x)
    return y, y


def sigmoid_backward(dy: Tensor, y: Tensor) -> Tensor:
    """Computes the gradient through `sigmoid`."""
    return aten.sigmoid_backward(dy, y)


def average_pool(x: Tensor, **options: Any) -> Tensor:
    """Computes means of windows."""
    return torch.nn.functional.avg_pool2d(x, **options)


def average_pool_backward(dy: Tensor, shape: tuple[int, ...], **options: Any) -> Tensor:
    """Computes the gradient through `average_pool`; only the input's shape is read."""
    kernel, stride = options["kernel_size"], options["stride"]
    rest = options["padding"], options["ceil_mode"], options["count_include_pad"]
    return aten.avg_pool2d_backward(
        dy, stand_in(dy, shape), kernel, stride, *rest, options["divisor_override"]
    )


def adaptive_average_pool(x: Tensor, size: Any) -> Tensor:
    """Computes means of a given number of windows."""
    return torch.nn.functional.adaptive_avg_pool2d(x, size)


def adaptive_average_pool_backward(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Computes the gradient through `adaptive_average_pool`; only the input's shape is read."""
    if tuple(dy.shape[2:]) == tuple(shape[2:]):
        return dy
    if dy.shape[2] == dy.shape[3] == 1:
        return (dy / (shape[2] * shape[3])).expand(batched(dy, shape))
    return aten._adaptive_avg_pool2d_backward(dy, stand_in(dy, shape))


def mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Averages over some axes."""
    return x.mean(axes, keepdim)


def mean_backward(dy: Tensor, shape: tuple[int, ...], axes: list[int], keepdim: bool) -> Tensor:
    """Gives every averaged value the same share of the gradient."""
    for axis in () if keepdim else sorted(axes):
        dy = dy.unsqueeze(axis)
    return (dy / math.prod(shape[axis] for axis in axes)).expand(batched(dy, shape))


def _like(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums a gradient over what broadcasting repeated."""
    wanted = tuple(batched(gradient, shape)) if len(shape) == gradient.ndim else shape
    return gradient if tuple(gradient.shape) == wanted else gradient.sum_to_size(wanted)


def add(x: Tensor, other: Any) -> Tensor:
    """Computes x + other."""
    return x + other


def add_backward(dy: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Gives each term the gradient, summed where the term was repeated."""
    return tuple(_like(dy, shape) for shape in shapes)


def passed_on(dy: Tensor) -> Tensor:
    """Returns its argument unchanged."""
    return dy


def multiply(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes x other, and keeps both."""
    return x * other, x, other


def multiply_backward(
    dy: Tensor, x: Tensor, other: Tensor, shapes: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Gives each factor the gradient times the other factor."""
    return _like(dy * other, shapes[0]), _like(dy * x, shapes[1])


def scale(x: Tensor, factor: Any) -> Tensor:
    """Multiplies x by what does not depend on the picture."""
    return x * factor


def scale_backward(dy: Tensor, factor: Any, shape: tuple[int, ...]) -> Tensor:
    """Multiplies the gradient by the same."""
    return _like(dy * factor, shape)


def concatenate(*parts: Tensor, axis: int) -> Tensor:
    """Concatenates values along an axis."""
    return torch.cat(parts, axis)


def concatenate_backward(dy: Tensor, sizes: list[int], axis: int) -> tuple[Tensor, ...]:
    """Gives each part its slice of the gradient."""
    return dy.split(sizes, axis)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """Applies the affine function that BatchNorm is once its statistics are fixed."""
    return torch.nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, epsilon)


def batch_norm_backward(
    dy: Tensor, weight: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """Multiplies the gradient by the same factors; only the input's shape is read."""
    factors = weight, mean, variance, None, None
    return aten.native_batch_norm_backward(dy, dy, *factors, False, epsilon, [True, False, False])[0]


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalizes x to mean 0 and variance 1 over the last axes and scales it; keeps x and its statistics."""
    y, mean, deviation = torch.native_layer_norm(x, shape, weight, bias, epsilon)
    return y, x, mean, deviation


def layer_norm_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    shape: list[int],
) -> Tensor:
    """Computes the gradient through `layer_norm`."""
    kept = mean, deviation, weight, bias
    return aten.native_layer_norm_backward(dy.contiguous(), x, shape, *kept, [True, False, False])[0]


def linear_backward(dy: Tensor, weight: Tensor) -> Tensor:
    """Computes the gradient of a linear layer's input."""
    return dy @ weight


def reshape_backward(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Gives the gradient the input's shape."""
    return dy.reshape(batched(dy, shape))


def permute_backward(dy: Tensor, axes: list[int]) -> Tensor:
    """Puts the axes back in their order."""
    return dy.permute(axes)


def picked(values: Sequence[Any], index: int) -> Any:
    """Returns one of several values."""
    return values[index]


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
