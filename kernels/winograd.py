"""The door to Winograd's algorithm: convolutions of 3 x 3 in bfloat16 with fewer multiplications.

The same rules as in `ops`, which lists this too. Maps [B, C, H, W] are channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import network_kernels_for
from .doors import Op, check_bfloat16, check_bias, must
from .rows import maps_and_mask

PANEL = 16
"""Channels that those of `winograd` are a multiple of."""


def winograd_weight(weight: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The filters of a 3 x 3 convolution as `winograd` reads them, rounded once.

    U = G g G^T, G = [[1, 0, 0], [1/2, 1/2, 1/2], [1/2, -1/2, 1/2], [0, 0, 1]]

    Args:
        weight: g, of one group [C', C, 3, 3], any float dtype; both numbers of channels multiples of 16.
        dtype: of the result.

    Returns:
        [C' / 16, 16 places, C / 2, 16, 2]: of each place the words that 16 output channels read side by side.

    Raises:
        ValueError: another shape.
    """
    fits = weight.ndim == 4 and weight.shape[2:] == (3, 3) and not any(n % PANEL for n in weight.shape[:2])
    must(fits, "weight", f"be [C', C, 3, 3] with multiples of {PANEL} channels", tuple(weight.shape))
    one = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], device=weight.device)
    turned = torch.kron(one, one) @ weight.float().permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    words = turned.to(dtype).view(16, -1, PANEL, weight.shape[1] // 2, 2)
    return words.permute(1, 0, 3, 2, 4).contiguous()


def _check_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> None:
    must(x.ndim == 4 and x.numel() > 0, "x", "be non-empty maps [B, C, H, W]", tuple(x.shape))
    check_bfloat16(x=x, weight=weight)
    shape = tuple(weight.shape)
    fits = weight.ndim == 5 and shape[1:] == (16, x.shape[1] // 2, PANEL, 2) and x.shape[1] % PANEL == 0
    must(fits, "weight", f"be from `winograd_weight` for {x.shape[1]} channels", shape)
    check_bias(bias, shape[0] * PANEL)
    must(len(padding) == 2 and 0 <= min(padding) <= max(padding) <= 2, "padding", "be 0 to 2", padding)
    must(
        min(x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]) > 2,
        "x",
        "hold a filter",
        tuple(x.shape),
    )


@Op
def _winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool
) -> list[Tensor]:
    _check_winograd(x, weight, bias, padding)
    return network_kernels_for(x).winograd(x, weight, bias, padding, rectified)


@_winograd.fake
def _(x, weight, bias, padding, rectified):  # type: ignore[no-untyped-def]
    _check_winograd(x, weight, bias, padding)
    size = [length + 2 * p - 2 for length, p in zip(x.shape[2:], padding, strict=True)]
    return maps_and_mask(x, weight.shape[0] * PANEL, size, rectified)


def winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool = False
) -> list[Tensor]:
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
        y [B, C', H', W'], and where it is rectified, its mask.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    result: list[Tensor] = _winograd(x, weight, bias, padding, rectified)
    return result


OPS = (_winograd.registered,)
"""Every op in here, for those who list them."""
