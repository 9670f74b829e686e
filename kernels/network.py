"""The door to the ops inside a network: rectifiers and pooling that keep bits and bytes for the way back.

The same rules as in `ops`, which lists these too. Maps [B, C, H, W] are channels last; tensors of other
dimensions have their channels in the last axis. A *mask* holds one bit a value, eight channels a byte, the
first in the lowest bit: uint8 [..., sum of ceil(C / 8) over the parts], with maps [B, H, W, ...].

Called as they are, the functions run what `backends` chooses; while something is compiled, or on tensors
without memory, they are nodes of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import network_kernels_for
from .rows import channels_of, new_maps, new_mask, pooled_size

LARGEST_WINDOW = 255
"""Positions that a window of `max_pool` may have, so that one fits a byte."""
FEW_CHANNELS = 4
"""Channels that a convolution may read whose `input_gradient` is made here."""
WIDEST_FILTER = 32
"""Columns that its filters may have."""
PANEL = 16
"""Channels that those of a convolution by `winograd` are a multiple of."""
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _must(condition: bool, name: str, requirement: str, got: object) -> None:
    if not condition:
        raise ValueError(f"`{name}` must {requirement}, got {got}")


def _check_floats(name: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype not in _FLOATS or tensor.dtype != tensors[0].dtype:
            raise TypeError(f"`{name}` must be of one float dtype, got {tensor.dtype}")
        _must(tensor.numel() > 0, name, "not be empty", tuple(tensor.shape))


class _Op:
    """A function that is run as it is where that can be, since the dispatcher takes 15 us of every call."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        name = f"cnnvis_fast::{plain.__name__.removeprefix('_')}"
        self.registered = torch.library.custom_op(name, plain, mutates_args=())

    def fake(self, function: Callable[..., Any]) -> None:
        """Registers what makes results without values."""
        self.registered.register_fake(function)

    def __call__(self, *arguments: Any) -> Any:
        first = arguments[0][0] if isinstance(arguments[0], list) and arguments[0] else arguments[0]
        as_it_is = type(first) is Tensor and not torch.compiler.is_compiling()
        return self.plain(*arguments) if as_it_is else self.registered(*arguments)


def _rows_shape(x: Tensor, channels: int) -> tuple[int, ...]:
    """Shape with the channels last and as many as told."""
    return (x.shape[0], *x.shape[2:], channels) if x.ndim == 4 else (*x.shape[:-1], channels)


def _bytes(channels: list[int]) -> int:
    return sum(-(-count // 8) for count in channels)


def _check_rectify(parts: list[Tensor], other: Tensor | None) -> None:
    _must(len(parts) > 0, "parts", "be at least one tensor", "none")
    _check_floats("parts", *parts)
    for part in parts:
        _must(part.ndim >= 1, "parts", "have channels", tuple(part.shape))
        same = _rows_shape(part, 1) == _rows_shape(parts[0], 1)
        _must(same, "parts", "differ in their channels only", [tuple(p.shape) for p in parts])
    if other is not None:
        _must(len(parts) == 1, "parts", "be one tensor where `other` is given", len(parts))
        _must(other.shape == parts[0].shape, "other", f"be {tuple(parts[0].shape)}", tuple(other.shape))
        _check_floats("other", parts[0], other)


@_Op
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
    """The rectifier behind a concatenation of channels, or behind a sum, and where it is on.

    y = relu(cat(parts)), or relu(part + other)

    Args:
        parts: tensors that differ in their channels only, any float dtype; one where `other` is given.
        other: what is added, like the part.

    Returns:
        y, and its mask: on wherever y is not 0; NaN is on, as PyTorch has it.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _rectify(parts, other)
    return result


@_Op
def _positive(y: Tensor) -> Tensor:
    _check_floats("y", y)
    return network_kernels_for(y).positive(y)


@_positive.fake
def _(y):  # type: ignore[no-untyped-def]
    _check_floats("y", y)
    return new_mask(y, [channels_of(y)])


def positive(y: Tensor) -> Tensor:
    """The mask of a rectifier that has run already: on wherever y is not 0 or less.

    Args:
        y: what the rectifier gave, any float dtype.

    Raises:
        ValueError, TypeError: y is empty or of another dtype.
    """
    result: Tensor = _positive(y)
    return result


def _check_rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> None:
    _must(len(gradients) in (1, 2), "gradients", "be one or two tensors", len(gradients))
    _check_floats("gradients", *gradients)
    first = gradients[0]
    _must(gradients[-1].shape == first.shape, "gradients", "have one shape", tuple(gradients[-1].shape))
    _must(sum(channels) == channels_of(first), "channels", f"add up to {channels_of(first)}", channels)
    shape = _rows_shape(first, _bytes(channels))
    _must(mask.shape == shape, "mask", f"be {list(shape)}", tuple(mask.shape))
    if mask.dtype != torch.uint8:
        raise TypeError(f"`mask` must be uint8, got {mask.dtype}")


@_Op
def _rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    _check_rectify_backward(gradients, mask, channels)
    return network_kernels_for(gradients[0]).rectify_backward(gradients, mask, channels)


@_rectify_backward.fake
def _(gradients, mask, channels):  # type: ignore[no-untyped-def]
    _check_rectify_backward(gradients, mask, channels)
    return [new_maps(gradients[0], count) for count in channels]


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """The adjoint of `rectify`'s derivative.

    cat(dx) = mask * (sum of gradients)

    Args:
        gradients: with respect to y, from one reader or two of it; slices of other tensors are welcome.
        mask: from `rectify` or `positive`.
        channels: of each part.

    Returns:
        The gradient of each part; that of `other` is the same.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _rectify_backward(gradients, mask, channels)
    return result


def _check_windows(kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> None:
    for name, pair, least in (("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1)):
        _must(len(pair) == 2 and min(pair) >= least, name, "be two whole numbers of at least 1", pair)
    fits = kernel[0] * kernel[1] <= LARGEST_WINDOW
    _must(fits, "kernel", f"have at most {LARGEST_WINDOW} positions", kernel)
    halves = len(padding) == 2 and all(0 <= 2 * p <= k for p, k in zip(padding, kernel, strict=True))
    _must(halves, "padding", "be two numbers from 0 to half the kernel", padding)


def _check_max_pool(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil: bool
) -> list[int]:
    _must(x.ndim == 4, "x", "be [B, C, H, W]", tuple(x.shape))
    _check_floats("x", x)
    _check_windows(kernel, stride, padding, dilation)
    sizes = [
        pooled_size(x.shape[2 + axis], kernel[axis], stride[axis], padding[axis], dilation[axis], ceil)
        for axis in (0, 1)
    ]
    _must(min(sizes) > 0, "x", f"hold a window of {kernel}", tuple(x.shape))
    return sizes


@_Op
def _max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    _check_max_pool(x, kernel, stride, padding, dilation, ceil_mode)
    return network_kernels_for(x).max_pool(x, kernel, stride, padding, dilation, ceil_mode, rectified)


@_max_pool.fake
def _(x, kernel, stride, padding, dilation, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    sizes = _check_max_pool(x, kernel, stride, padding, dilation, ceil_mode)
    y = new_maps(x, x.shape[1], sizes)
    return y, torch.empty_like(y, dtype=torch.uint8)


def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool = False,
    rectified: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maxima of windows, behind a rectifier or not, and where in its window each lies.

    The first of equal values counts; NaN counts as the largest. The maximum of rectified values is the
    rectified maximum, so that the rectifier costs nothing.

    Args:
        x: maps, any float dtype [B, C, H, W].
        kernel: height and width of the windows, at most 255 positions.
        stride: down and right, in pixels.
        padding: rows and columns around the picture that no maximum is taken from.
        dilation: distance of a window's positions, in pixels.
        ceil_mode: whether windows may reach beyond the end, as in PyTorch.
        rectified: whether y is the maximum of relu(x).

    Returns:
        y [B, C, H', W'] and the place of each maximum, uint8, like y: row * width + column in its window,
        or 255 where y is a rectifier's zero.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _max_pool(x, kernel, stride, padding, dilation, ceil_mode, rectified)
    return result


def _check_max_pool_backward(
    dy: Tensor, place: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> None:
    _must(dy.ndim == 4, "dy", "be [B, C, H, W]", tuple(dy.shape))
    _check_floats("dy", dy)
    _must(place.shape == dy.shape, "place", f"be {tuple(dy.shape)}", tuple(place.shape))
    if place.dtype != torch.uint8:
        raise TypeError(f"`place` must be uint8, got {place.dtype}")
    _check_windows(kernel, stride, padding, dilation)


@_Op
def _max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    _check_max_pool_backward(dy, place, kernel, stride, padding, dilation)
    return network_kernels_for(dy).max_pool_backward(dy, place, kernel, stride, padding, dilation, size)


@_max_pool_backward.fake
def _(dy, place, kernel, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    _check_max_pool_backward(dy, place, kernel, stride, padding, dilation)
    return new_maps(dy, dy.shape[1], size)


def max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The adjoint of `max_pool`'s derivative: each gradient goes to where its maximum was.

    Args:
        dy: gradient with respect to y, any float dtype [B, C, H', W'].
        place: from `max_pool`; `kernel`, `stride`, `padding` and `dilation` as there.
        kernel: as for `max_pool`.
        stride: as for `max_pool`.
        padding: as for `max_pool`.
        dilation: as for `max_pool`.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; gradients of overlapping windows are added in float32 and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _max_pool_backward(dy, place, kernel, stride, padding, dilation, size)
    return result


def _check_input_gradient(
    dy: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], size: list[int]
) -> None:
    _must(dy.ndim == 4, "dy", "be [B, C', H', W']", tuple(dy.shape))
    _check_floats("dy", dy)
    _must(weight.ndim == 4, "weight", "be [C', C, height, width]", tuple(weight.shape))
    _check_floats("weight", dy, weight)
    _must(weight.shape[0] == dy.shape[1], "weight", f"write {dy.shape[1]} channels", tuple(weight.shape))
    _must(weight.shape[1] <= FEW_CHANNELS, "weight", f"read up to {FEW_CHANNELS} channels", weight.shape[1])
    kernel = list(weight.shape[2:])
    _must(kernel[1] <= WIDEST_FILTER, "weight", f"have at most {WIDEST_FILTER} columns", kernel[1])
    for name, pair, least in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
        _must(len(pair) == 2 and min(pair) >= least, name, f"be two whole numbers from {least} on", pair)
    _must(len(size) == 2 and min(size) >= 1, "size", "be height and width", size)
    for axis, (length, taps) in enumerate(zip(size, kernel, strict=True)):
        expected = pooled_size(length, taps, stride[axis], padding[axis], dilation[axis], False)
        _must(dy.shape[2 + axis] == expected, "size", "be what dy's size comes from", size)


@_Op
def _input_gradient(
    dy: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], size: list[int]
) -> Tensor:
    _check_input_gradient(dy, weight, stride, padding, dilation, size)
    return network_kernels_for(dy).input_gradient(dy, weight, stride, padding, dilation, size)


@_input_gradient.fake
def _(dy, weight, stride, padding, dilation, size):  # type: ignore[no-untyped-def]
    _check_input_gradient(dy, weight, stride, padding, dilation, size)
    return new_maps(dy, weight.shape[1], size)


def input_gradient(
    dy: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], size: list[int]
) -> Tensor:
    """The input gradient of a convolution that reads few channels, as a network's first does.

    dx[b, c, y, x] = sum of dy[b, o, i, j] weight[o, c, k, m] over y = s i - p + d k, x = s j - p + d m

    Args:
        dy: gradient with respect to the convolution's output, any float dtype [B, C', H', W'].
        weight: of the convolution, one group [C', C, height, width]; up to 4 channels C, up to 32 columns.
        stride: s, down and right, in pixels.
        padding: p, rows and columns of zeros around the picture.
        dilation: d, distance of the filter's positions, in pixels.
        size: height and width of the input.

    Returns:
        dx [B, C, H, W]; sums are float32 at least and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _input_gradient(dy, weight, stride, padding, dilation, size)
    return result


def winograd_weight(weight: Tensor) -> Tensor:
    """The filters of a 3 x 3 convolution as `winograd` reads them, rounded once.

    U = G g G^T, G = [[1, 0, 0], [1/2, 1/2, 1/2], [1/2, -1/2, 1/2], [0, 0, 1]]

    Args:
        weight: g, of one group [C', C, 3, 3]; both numbers of channels multiples of 16.

    Returns:
        [C' / 16, 16 places, C / 2, 16, 2]: of each place the words that 16 output channels read side by side,
        in weight's dtype.

    Raises:
        ValueError: another shape.
    """
    fits = weight.ndim == 4 and weight.shape[2:] == (3, 3) and not any(n % PANEL for n in weight.shape[:2])
    _must(fits, "weight", f"be [C', C, 3, 3] with multiples of {PANEL} channels", tuple(weight.shape))
    half = [0.5, 0.5, 0.5], [0.5, -0.5, 0.5]
    turn = torch.tensor([[1, 0, 0], *half, [0, 0, 1]], device=weight.device)
    turned = torch.einsum("ia,nkab,jb->nkij", turn, weight.float(), turn).to(weight.dtype)
    words = turned.unflatten(0, (-1, PANEL)).unflatten(2, (-1, 2)).flatten(4)
    return words.permute(0, 4, 2, 1, 3).contiguous()


def _check_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> None:
    _must(x.ndim == 4 and x.numel() > 0, "x", "be non-empty maps [B, C, H, W]", tuple(x.shape))
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dtype != torch.bfloat16:
            raise TypeError(f"`{name}` must be bfloat16, got {tensor.dtype}")
    shape = tuple(weight.shape)
    fits = weight.ndim == 5 and shape[1:] == (16, x.shape[1] // 2, PANEL, 2) and x.shape[1] % PANEL == 0
    _must(fits, "weight", f"be from `winograd_weight` for {x.shape[1]} channels", shape)
    if bias is not None:
        count = shape[0] * PANEL
        _must(bias.shape == (count,), "bias", f"be [{count}]", tuple(bias.shape))
    _must(len(padding) == 2 and 0 <= min(padding) <= max(padding) <= 2, "padding", "be 0 to 2", padding)
    _must(
        min(x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]) > 2,
        "x",
        "hold a filter",
        tuple(x.shape),
    )


@_Op
def _winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool) -> Tensor:
    _check_winograd(x, weight, bias, padding)
    return network_kernels_for(x).winograd(x, weight, bias, padding, rectified)


@_winograd.fake
def _(x, weight, bias, padding, rectified):  # type: ignore[no-untyped-def]
    _check_winograd(x, weight, bias, padding)
    return new_maps(
        x, weight.shape[0] * PANEL, [x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2]
    )


def winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool = False
) -> Tensor:
    """A convolution of 3 x 3 with stride 1 in 2.25 times fewer multiplications.

    Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray 2016): of every tile d of 4 x 4 pixels, two
    apart, V = B^T d B, rounded to bfloat16; M = sum over channels of U V, in float32; of it 2 x 2 pixels
    y = A^T M A + bias, rounded once. Rounding V and U makes its error about twice that of a convolution in
    bfloat16.

    Args:
        x: maps, bfloat16 [B, C, H, W]; C a multiple of 16.
        weight: U, from `winograd_weight`, for C channels.
        bias: of each output channel, any float dtype, or None.
        padding: rows and columns of zeros around the picture, up to 2.
        rectified: whether y is the rectified one.

    Returns:
        y [B, C', H', W'].

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _winograd(x, weight, bias, padding, rectified)
    return result


OPS = tuple(
    op.registered
    for op in (
        _rectify,
        _positive,
        _rectify_backward,
        _max_pool,
        _max_pool_backward,
        _input_gradient,
        _winograd,
    )
)
"""Every op in here, for those who list them."""
