"""Pictures from parameters, and the gradient back to the parameters.

Shapes: B images of C channels and H x W pixels. A *warp* is None, integer jitter (int64 [B, 2], pixels down
and right, wrapping around the edges) or affine ([B, 2, 3] in z's dtype, mapping output to input coordinates
in [-1, 1] as `torch.nn.functional.affine_grid` with `align_corners=False`; bilinear, reflected at the
borders).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import kernels_for
from .registration import FLOATS, check_images, must


def _check_render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> None:
    check_images(z, color, std, warp)
    must(mean.shape == std.shape, "mean", f"be {tuple(std.shape)}", tuple(mean.shape))
    if mean.dtype != z.dtype:
        raise TypeError(f"`mean` must have z's dtype {z.dtype}, got {mean.dtype}")
    if dtype not in FLOATS:
        raise TypeError(f"`dtype` must be one of {', '.join(map(str, FLOATS))}, got {dtype}")


@torch.library.custom_op("cnnvis_fast::render", mutates_args=())
def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Turns parameters into what the network reads, in one pass.

    x = cast((warp(sigmoid(color @ z)) - mean) / std)

    Args:
        z: pictures in decorrelated color space before the sigmoid, float32 or float64 [B, C, H, W].
        color: matrix from decorrelated to RGB channels, [C, C].
        mean: mean of the network's preprocessing, per channel in [0, 1], [C].
        std: standard deviation of the network's preprocessing, [C].
        warp: None, jitter (int64 [B, 2]) or affine ([B, 2, 3] in z's dtype).
        dtype: dtype of the result.

    Returns:
        x [B, C, H, W] in channels-last memory.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_render(z, color, mean, std, warp, dtype)
    return kernels_for(z, z.shape[1]).render(z, color, mean, std, warp, dtype)


@render.register_fake
def _(z, color, mean, std, warp, dtype):  # type: ignore[no-untyped-def]
    _check_render(z, color, mean, std, warp, dtype)
    return torch.empty_like(z, dtype=dtype, memory_format=torch.channels_last)


def _check_render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> None:
    check_images(z, color, std, warp)
    must(g.shape == z.shape, "g", f"have z's shape {tuple(z.shape)}", tuple(g.shape))
    if g.dtype not in FLOATS:
        raise TypeError(f"`g` must be one of {', '.join(map(str, FLOATS))}, got {g.dtype}")


@torch.library.custom_op("cnnvis_fast::render_backward", mutates_args=())
def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Applies the exact adjoint of `render`'s derivative at z.

    dz = color^T @ (s (1 - s) warp^T(g / std)), s = sigmoid(color @ z)

    Args:
        g: gradient with respect to `render`'s result, any float dtype, [B, C, H, W].
        z: pictures that `render` was given, float32 or float64 [B, C, H, W].
        color: matrix from decorrelated to RGB channels, [C, C].
        std: standard deviation of the network's preprocessing, [C].
        warp: None, jitter (int64 [B, 2]) or affine ([B, 2, 3] in z's dtype), as `render` was given it.

    Returns:
        dz [B, C, H, W], contiguous, in z's dtype.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_render_backward(g, z, color, std, warp)
    return kernels_for(z, z.shape[1]).render_backward(g, z, color, std, warp)


@render_backward.register_fake
def _(g, z, color, std, warp):  # type: ignore[no-untyped-def]
    _check_render_backward(g, z, color, std, warp)
    return torch.empty_like(z, memory_format=torch.contiguous_format)
