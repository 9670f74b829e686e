"""Average pooling, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..steps import batched, stand_in

aten = torch.ops.aten


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
