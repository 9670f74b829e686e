"""Normalizations with fixed statistics or over the last axes, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


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
