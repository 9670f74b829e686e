"""1 x 1 convolutions in bfloat16, as products of pixels and filters.

Maps [B, C, H, W] are channels last.
"""

from __future__ import annotations

from torch import Tensor

from ..backends import network_kernels_for
from ..layouts import PANEL, maps_and_mask
from .registration import Op, check_bfloat16, check_bias, must


def pointwise_weight(weight: Tensor) -> Tensor:
    """Returns the filters of a 1 x 1 convolution as `pointwise` reads them.

    Args:
        weight: one group [C', C, 1, 1], any dtype; both numbers of channels multiples of 16.

    Returns:
        [C' / 16, C / 2, 16, 2]: the words that 16 output channels read, side by side.

    Raises:
        ValueError: the weight has another shape.
    """
    fits = weight.ndim == 4 and weight.shape[2:] == (1, 1) and not any(n % PANEL for n in weight.shape[:2])
    must(fits, "weight", f"be [C', C, 1, 1] with multiples of {PANEL} channels", tuple(weight.shape))
    return weight.reshape(-1, PANEL, weight.shape[1] // 2, 2).transpose(1, 2).contiguous()


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    must(x.ndim == 4 and x.numel() > 0, "x", "be non-empty maps [B, C, H, W]", tuple(x.shape))
    check_bfloat16(x=x, weight=weight)
    shape = tuple(weight.shape)
    fits = weight.ndim == 4 and shape[1:] == (x.shape[1] // 2, PANEL, 2) and x.shape[1] % PANEL == 0
    must(fits, "weight", f"be from `pointwise_weight` for {x.shape[1]} channels", shape)
    check_bias(bias, shape[0] * PANEL)


@Op
def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
    _check(x, weight, bias)
    return network_kernels_for(x).pointwise(x, weight, bias, rectified)


@_pointwise.fake
def _(x, weight, bias, rectified):  # type: ignore[no-untyped-def]
    _check(x, weight, bias)
    return maps_and_mask(x, weight.shape[0] * PANEL, list(x.shape[2:]), rectified)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool = False) -> list[Tensor]:
    """Runs a 1 x 1 convolution with stride 1.

    Args:
        x: maps, bfloat16 [B, C, H, W]; C a multiple of 16.
        weight: from `pointwise_weight`, for C channels.
        bias: of each output channel, any float dtype, or None.
        rectified: whether to return relu(y) in place of y.

    Returns:
        y [B, C', H, W], and where it is rectified, its mask; sums are float32 and rounded once.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _pointwise(x, weight, bias, rectified)
    return result


OPS = (_pointwise.registered,)
"""The registered ops of this file."""
