"""Sums, products, concatenations and changes of shape, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..steps import batched


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


def reshape_backward(dy: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Gives the gradient the input's shape."""
    return dy.reshape(batched(dy, shape))


def permute_backward(dy: Tensor, axes: list[int]) -> Tensor:
    """Puts the axes back in their order."""
    return dy.permute(axes)


def picked(values: Sequence[Any], index: int) -> Any:
    """Returns one of several values."""
    return values[index]
