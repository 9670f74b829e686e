"""Forward and backward passes of activations, which the emitted code calls by name, as all in this room.

`name` returns a value, or the value and what its backward pass needs; `name_backward` returns the gradients
of the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import ops

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
