"""There and back for the modules that a program knows: plain functions, which the emitted code calls by name.

`name` yields a value, or the value and what its way back needs; `name_backward` yields the gradient.
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
    """relu(x) and its mask."""
    return ops.rectify([x], None)


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: int) -> Tensor:
    """Through one rectifier."""
    return ops.rectify_backward(gradients, mask, [channels])[0]


def rectified_sum(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """relu(x + other) and its mask."""
    return ops.rectify([x], other)


def rectified_sum_backward(gradients: list[Tensor], mask: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """To both terms alike."""
    (dx,) = ops.rectify_backward(gradients, mask, [channels])
    return dx, dx


def rectified_concatenation(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """relu(cat(parts)) and its mask."""
    return ops.rectify(list(parts), None)


def rectified_concatenation_backward(
    gradients: list[Tensor], mask: Tensor, channels: list[int]
) -> list[Tensor]:
    """To each part its own."""
    return ops.rectify_backward(gradients, mask, channels)


def clamped(x: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """X within bounds, which also tells where it was within them."""
    y = torch.nn.functional.hardtanh(x, low, high)
    return y, y


def clamped_backward(dy: Tensor, y: Tensor, low: float, high: float) -> Tensor:
    """Only where nothing was cut off."""
    return aten.hardtanh_backward(dy, y, low, high)


def leaky(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """X, the negative ones flattened."""
    return torch.nn.functional.leaky_relu(x, slope), x


def leaky_backward(dy: Tensor, x: Tensor, slope: float) -> Tensor:
    """Flattened where x was."""
    return aten.leaky_relu_backward(dy, x, slope, False)


def silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """X sigmoid(x)."""
    return torch.nn.functional.silu(x), x


def silu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Through `silu`."""
    return aten.silu_backward(dy, x)


def gelu(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
    """X times the normal distribution at x."""
    return torch.nn.functional.gelu(x, approximate=approximate), x


def gelu_backward(dy: Tensor, x: Tensor, approximate: str) -> Tensor:
    """Through `gelu`."""
    return aten.gelu_backward(dy, x, approximate=approximate)


def hardswish(x: Tensor) -> tuple[Tensor, Tensor]:
    """X hardsigmoid(x)."""
    return torch.nn.functional.hardswish(x), x


def hardswish_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Through `hardswish`."""
    return aten.hardswish_backward(dy, x)


def hardsigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """relu6(x + 3) / 6."""
    return torch.nn.functional.hardsigmoid(x), x


def hardsigmoid_backward(dy: Tensor, x: Tensor) -> Tensor:
    """Through `hardsigmoid`."""
    return aten.hardsigmoid_backward(dy, x)


def sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """The logistic function, which is kept itself."""
    y = torch.sigmoid(x)
    return y, y


def sigmoid_backward(dy: Tensor, y: Tensor) -> Tensor:
    """Through `sigmoid`."""
    return aten.sigmoid_backward(dy, y)


def average_pool(x: Tensor, **options: Any) -> Tensor:
    """Means of windows."""
    return torch.nn.functional.avg_pool2d(x, **options)


def average_pool_backward(dy: Tensor, shape: tuple[int, ...], **options: Any) -> Tensor:
    """Through `average_pool`; the input lends its shape only."""
    kernel, stride = options["kernel_size"], options["stride"]
    rest = options["padding"], options["ceil_mode"], options["count_include_pad"]
    return aten.avg_pool2d_backward(
        dy, stand_in(dy, shape), kernel, stride, *rest, options["divisor_override"]
    )


def adaptive_average_pool(x: Tensor, size: Any) -> Tensor:
    """Means of as many windows as asked for."""
    return torch.nn.functional.adaptive_avg_pool2d(x, size)


def adaptive_average_pool_backward(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Through `adaptive_average_pool`; the input lends its shape only."""
    if tuple(dy.shape[2:]) == tuple(shape[2:]):
        return dy
    if dy.shape[2] == dy.shape[3] == 1:
        return (dy / (shape[2] * shape[3])).expand(batched(dy, shape))
    return aten._adaptive_avg_pool2d_backward(dy, stand_in(dy, shape))


def mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """Over some axes."""
    return x.mean(axes, keepdim)


def mean_backward(dy: Tensor, shape: tuple[int, ...], axes: list[int], keepdim: bool) -> Tensor:
    """To all alike."""
    for axis in () if keepdim else sorted(axes):
        dy = dy.unsqueeze(axis)
    return (dy / math.prod(shape[axis] for axis in axes)).expand(batched(dy, shape))


def _like(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sums over what broadcasting repeated."""
    wanted = tuple(batched(gradient, shape)) if len(shape) == gradient.ndim else shape
    return gradient if tuple(gradient.shape) == wanted else gradient.sum_to_size(wanted)


def add(x: Tensor, other: Any) -> Tensor:
    """X + other."""
    return x + other


def add_backward(dy: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """To each term, summed where it was repeated."""
    return tuple(_like(dy, shape) for shape in shapes)


def passed_on(dy: Tensor) -> Tensor:
    """As it is."""
    return dy


def multiply(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X other, both kept."""
    return x * other, x, other


def multiply_backward(
    dy: Tensor, x: Tensor, other: Tensor, shapes: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """To each factor the other one's share."""
    return _like(dy * other, shapes[0]), _like(dy * x, shapes[1])


def scale(x: Tensor, factor: Any) -> Tensor:
    """X times what does not depend on the picture."""
    return x * factor


def scale_backward(dy: Tensor, factor: Any, shape: tuple[int, ...]) -> Tensor:
    """Times the same."""
    return _like(dy * factor, shape)


def concatenate(*parts: Tensor, axis: int) -> Tensor:
    """Side by side."""
    return torch.cat(parts, axis)


def concatenate_backward(dy: Tensor, sizes: list[int], axis: int) -> tuple[Tensor, ...]:
    """To each part its slice."""
    return dy.split(sizes, axis)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """The affine function that BatchNorm is once its statistics are fixed."""
    return torch.nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, epsilon)


def batch_norm_backward(
    dy: Tensor, weight: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """Times the same factors; of its input only the shape is looked at."""
    factors = weight, mean, variance, None, None
    return aten.native_batch_norm_backward(dy, dy, *factors, False, epsilon, [True, False, False])[0]


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """X with mean 0 and variance 1 over the last axes, scaled; x and its statistics are kept."""
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
    """Through `layer_norm`."""
    kept = mean, deviation, weight, bias
    return aten.native_layer_norm_backward(dy.contiguous(), x, shape, *kept, [True, False, False])[0]


def linear_backward(dy: Tensor, weight: Tensor) -> Tensor:
    """To the inputs of a linear layer."""
    return dy @ weight


def reshape_backward(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in the input's shape."""
    return dy.reshape(batched(dy, shape))


def permute_backward(dy: Tensor, axes: list[int]) -> Tensor:
    """Axes back to where they were."""
    return dy.permute(axes)


def picked(values: Sequence[Any], index: int) -> Any:
    """One of several values."""
    return values[index]


def through_autograd(*values: Any, function: Any, count: int) -> tuple[Any, Any, Any]:
    """What a segment yields, its way back as autograd finds it, and which of several results have one.

    Args:
        values: the segment's inputs, those that get a gradient first.
        function: the segment.
        count: how many get a gradient.
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
    """The gradients of a segment's inputs; of several values, those that nobody reads have none."""
    if shapes is None:
        return pullback(gradient)
    there = next(part for part in gradient if part is not None)
    pairs = zip(gradient, shapes, strict=True)
    return pullback(tuple(there.new_zeros(shape) if part is None else part for part, shape in pairs if shape))
