"""Winograd's algorithm: 3 x 3 convolutions in bfloat16 with fewer multiplications.

Maps [B, C, H, W] are channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import network_kernels_for
from ..geometry import TILES, TILES_BEYOND, size_of_3x3
from ..layouts import PANEL, maps_and_mask, new_maps
from .pooling import check_max_pool_backward
from .registration import Op, check_bfloat16, check_bias, check_mask, must


def winograd_weight(weight: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Returns the filters of a 3 x 3 convolution as `winograd` reads them, rounded once.

    U = G g G^T, G = [[1, 0, 0], [1/2, 1/2, 1/2], [1/2, -1/2, 1/2], [0, 0, 1]]

    Args:
        weight: g, one group [C', C, 3, 3], any float dtype; both numbers of channels multiples of 16.
        dtype: dtype of the result.

    Returns:
        [C' / 16, 16 places, C / 2, 16, 2]: per place, the words that 16 output channels read, side by side.

    Raises:
        ValueError: the weight has another shape.
    """
    fits = weight.ndim == 4 and weight.shape[2:] == (3, 3) and not any(n % PANEL for n in weight.shape[:2])
    must(fits, "weight", f"be [C', C, 3, 3] with multiples of {PANEL} channels", tuple(weight.shape))
    one = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], device=weight.device)
    turned = torch.kron(one, one) @ weight.float().permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    words = turned.to(dtype).view(16, -1, PANEL, weight.shape[1] // 2, 2)
    return words.permute(1, 0, 3, 2, 4).contiguous()


def _check(weight: Tensor, shape: tuple[int, ...], bias: Tensor | None, padding: list[int]) -> list[int]:
    """Returns the result's height and width for maps of this shape."""
    channels, places = shape[1], tuple(weight.shape)
    fits = weight.ndim == 5 and places[1:] == (16, channels // 2, PANEL, 2) and channels % PANEL == 0
    must(fits, "weight", f"be from `winograd_weight` for {channels} channels", places)
    check_bfloat16(weight=weight)
    check_bias(bias, places[0] * PANEL)
    must(len(padding) == 2 and 0 <= min(padding) <= max(padding) <= 2, "padding", "be 0 to 2", padding)
    size = size_of_3x3(shape[2:], padding)
    must(min(size) > 0, "x", "hold a filter", shape)
    return size


def _check_maps(name: str, x: Tensor) -> None:
    must(x.ndim == 4 and x.numel() > 0, name, "be non-empty maps [B, C, H, W]", tuple(x.shape))
    check_bfloat16(**{name: x})


def _check_winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], mask: Tensor | None
) -> list[int]:
    _check_maps("x", x)
    if mask is not None:
        check_mask(mask, (x.shape[0], *x.shape[2:], -(-x.shape[1] // 8)))
    return _check(weight, tuple(x.shape), bias, padding)


@Op
def _winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    rectified: bool,
    mask: Tensor | None,
) -> list[Tensor]:
    _check_winograd(x, weight, bias, padding, mask)
    return network_kernels_for(x).winograd(x, weight, bias, padding, rectified, mask)


@_winograd.fake
def _(x, weight, bias, padding, rectified, mask):  # type: ignore[no-untyped-def]
    size = _check_winograd(x, weight, bias, padding, mask)
    return maps_and_mask(x, weight.shape[0] * PANEL, size, rectified)


def winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    rectified: bool = False,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """Runs a 3 x 3 convolution with stride 1 in 2.25 times fewer multiplications.

    Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray 2016): every tile d of 4 x 4 pixels, two
    apart, gives V = B^T d B, rounded to bfloat16; M = sum over channels of U V, in float32; and from it
    2 x 2 pixels y = A^T M A + bias, rounded once. Rounding V and U makes the error about twice that of a
    convolution in bfloat16.

    Args:
        x: maps, bfloat16 [B, C, H, W]; C a multiple of 16.
        weight: U, from `winograd_weight`, for C channels.
        bias: of each output channel, any float dtype, or None.
        padding: rows and columns of zeros around the picture, up to 2.
        rectified: whether to return relu(y) in place of y.
        mask: of a rectifier that x, then a gradient, passes through first; as from `rectify`.

    Returns:
        y [B, C', H', W'], and where it is rectified, its mask.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _winograd(x, weight, bias, padding, rectified, mask)
    return result


def _check_pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], ceil_mode: bool
) -> list[int]:
    size = _check_winograd(x, weight, bias, padding, None)
    pooled = (TILES_BEYOND if ceil_mode else TILES).output_size(size)
    must(min(pooled) > 0, "x", "hold a window", tuple(x.shape))
    return pooled


@Op
def _winograd_pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], ceil_mode: bool, rectified: bool
) -> tuple[Tensor, Tensor]:
    _check_pooled(x, weight, bias, padding, ceil_mode)
    return network_kernels_for(x).winograd_pooled(x, weight, bias, padding, ceil_mode, rectified)


@_winograd_pooled.fake
def _(x, weight, bias, padding, ceil_mode, rectified):  # type: ignore[no-untyped-def]
    y = new_maps(x, weight.shape[0] * PANEL, _check_pooled(x, weight, bias, padding, ceil_mode))
    return y, torch.empty_like(y, dtype=torch.uint8)


def winograd_pooled(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    ceil_mode: bool = False,
    rectified: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes `max_pool` of `winograd`, in windows of 2 x 2 that do not overlap: a tile's pixels.

    Args:
        x: maps, bfloat16 [B, C, H, W]; C a multiple of 16.
        weight: from `winograd_weight`, for C channels.
        bias: of each output channel, any float dtype, or None.
        padding: rows and columns of zeros around the picture, up to 2.
        ceil_mode: whether windows may reach beyond the end, as in PyTorch.
        rectified: whether there is a rectifier before or after the pooling.

    Returns:
        The maxima [B, C', H', W'] and the place of each, as from `max_pool`. What is pooled is rounded
        first.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: tuple[Tensor, Tensor] = _winograd_pooled(x, weight, bias, padding, ceil_mode, rectified)
    return result


def _check_unpooled(
    dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
) -> list[int]:
    _check_maps("dy", dy)
    check_max_pool_backward(dy, place, TILES, size)
    return _check(weight, (*dy.shape[:2], *size), None, padding)


@Op
def _winograd_unpooled(
    dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
) -> Tensor:
    _check_unpooled(dy, place, weight, padding, size)
    return network_kernels_for(dy).winograd_unpooled(dy, place, weight, padding, size)


@_winograd_unpooled.fake
def _(dy, place, weight, padding, size):  # type: ignore[no-untyped-def]
    return new_maps(dy, weight.shape[0] * PANEL, _check_unpooled(dy, place, weight, padding, size))


def winograd_unpooled(
    dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
) -> Tensor:
    """Computes `winograd` of `max_pool_backward`, for windows of 2 x 2 that do not overlap.

    Args:
        dy: gradient with respect to the maxima, bfloat16 [B, C, H, W]; C a multiple of 16.
        place: from `max_pool` or `winograd_pooled`.
        weight: from `winograd_weight`, for C channels.
        padding: rows and columns of zeros around the picture, up to 2.
        size: height and width of what was pooled.

    Returns:
        [B, C', H', W'].

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: Tensor = _winograd_unpooled(dy, place, weight, padding, size)
    return result


OPS = tuple(op.registered for op in (_winograd, _winograd_pooled, _winograd_unpooled))
"""The registered ops of this file."""
