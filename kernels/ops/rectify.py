"""Rectifiers that keep one bit per value for the backward pass.

Maps [B, C, H, W] are channels last; tensors of other dimensions have their channels in the last axis. A
*mask* holds one bit per value, eight channels per byte, the first in the lowest bit: uint8 [..., sum of
ceil(C / 8) over the parts], for maps [B, H, W, ...].
"""

from __future__ import annotations

from torch import Tensor

from ..backends import network_kernels_for
from ..layouts import channels_of, new_maps, new_mask
from .registration import Op, check_floats, check_mask, must


def _rows_shape(x: Tensor, channels: int) -> tuple[int, ...]:
    """Returns the shape with the channels last and with so many of them."""
    return (x.shape[0], *x.shape[2:], channels) if x.ndim == 4 else (*x.shape[:-1], channels)


def _bytes(channels: list[int]) -> int:
    return sum(-(-count // 8) for count in channels)


def _check_rectify(parts: list[Tensor], other: Tensor | None) -> None:
    must(len(parts) > 0, "parts", "be at least one tensor", "none")
    check_floats("parts", *parts)
    for part in parts:
        must(part.ndim >= 1, "parts", "have channels", tuple(part.shape))
        same = _rows_shape(part, 1) == _rows_shape(parts[0], 1)
        must(same, "parts", "differ in their channels only", [tuple(p.shape) for p in parts])
    if other is not None:
        must(len(parts) == 1, "parts", "be one tensor where `other` is given", len(parts))
        must(other.shape == parts[0].shape, "other", f"be {tuple(parts[0].shape)}", tuple(other.shape))
        check_floats("other", parts[0], other)


@Op
def _rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    _check_rectify(parts, other)
    return network_kernels_for(parts[0]).rectify(parts, other)


@_rectify.fake
def _(parts, other):  # type: ignore[no-untyped-def]
    _check_rectify(parts, other)
    channels = [channels_of(part) for part in parts]
    mask = new_mask(parts[0], channels)
    return new_maps(parts[0], sum(channels)), mask


def rectify(parts: list[Tensor], other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rectifies a concatenation of channels, or a sum, and records where the rectifier is on.

    y = relu(cat(parts)), or relu(part + other)

    Args:
        parts: tensors that differ in their channels only, any float dtype; one where `other` is given.
        other: second term of the sum, like the part; or None.

    Returns:
        y, and its mask: on wherever y is not 0; NaN is on, as PyTorch has it.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _rectify(parts, other)
    return result


@Op
def _positive(y: Tensor) -> Tensor:
    check_floats("y", y)
    return network_kernels_for(y).positive(y)


@_positive.fake
def _(y):  # type: ignore[no-untyped-def]
    check_floats("y", y)
    return new_mask(y, [channels_of(y)])


def positive(y: Tensor) -> Tensor:
    """Returns the mask of a rectifier that has run already: on wherever y is not 0 or less.

    Args:
        y: output of the rectifier, any float dtype.

    Raises:
        ValueError, TypeError: y is empty or of another dtype.
    """
    result: Tensor = _positive(y)
    return result


def _check_rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> None:
    must(len(gradients) in (1, 2), "gradients", "be one or two tensors", len(gradients))
    check_floats("gradients", *gradients)
    first = gradients[0]
    must(gradients[-1].shape == first.shape, "gradients", "have one shape", tuple(gradients[-1].shape))
    must(sum(channels) == channels_of(first), "channels", f"add up to {channels_of(first)}", channels)
    check_mask(mask, _rows_shape(first, _bytes(channels)))


@Op
def _rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    _check_rectify_backward(gradients, mask, channels)
    return network_kernels_for(gradients[0]).rectify_backward(gradients, mask, channels)


@_rectify_backward.fake
def _(gradients, mask, channels):  # type: ignore[no-untyped-def]
    _check_rectify_backward(gradients, mask, channels)
    return [new_maps(gradients[0], count) for count in channels]


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """Applies the adjoint of `rectify`'s derivative.

    cat(dx) = mask * (sum of gradients)

    Args:
        gradients: with respect to y, from one or two readers of it; may be slices of other tensors.
        mask: from `rectify` or `positive`.
        channels: number of channels of each part.

    Returns:
        The gradient of each part; that of `other` is the same.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _rectify_backward(gradients, mask, channels)
    return result


OPS = tuple(op.registered for op in (_rectify, _positive, _rectify_backward))
"""The registered ops of this file."""
