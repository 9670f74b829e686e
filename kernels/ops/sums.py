"""Sums over pictures: `dot` and `restrain`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import kernels_for, network_kernels_for
from .registration import check_images, must


def _check_dot(h: Tensor, maps: Tensor) -> None:
    must(h.ndim >= 1 and h.numel() > 0, "h", "be a non-empty [B, ...] tensor", tuple(h.shape))
    if not h.is_floating_point():
        raise TypeError(f"`h` must be of a float dtype, got {h.dtype}")
    must(maps.shape == h.shape, "maps", f"have h's shape {tuple(h.shape)}", tuple(maps.shape))
    if maps.dtype != h.dtype:
        raise TypeError(f"`maps` must have h's dtype {h.dtype}, got {maps.dtype}")


@torch.library.custom_op("cnnvis_fast::dot", mutates_args=())
def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sums h times maps over each image: a folded objective's value at a layer.

    Args:
        h: output of a layer, any float dtype, [B, ...].
        maps: coefficients, like h.

    Returns:
        The sums [B], float32 (float64 of float64), in a fixed order.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_dot(h, maps)
    return network_kernels_for(h).dot(h, maps)


@dot.register_fake
def _(h, maps):  # type: ignore[no-untyped-def]
    _check_dot(h, maps)
    return h.new_empty(h.shape[0], dtype=torch.promote_types(h.dtype, torch.float32))


def _check_restrain(dz: Tensor, z: Tensor, color: Tensor, limit: float) -> None:
    channels = z.shape[1] if z.ndim == 4 else 0
    check_images(z, color, z.new_empty(channels), None)
    must(dz.shape == z.shape, "dz", f"have z's shape {tuple(z.shape)}", tuple(dz.shape))
    if dz.dtype != z.dtype:
        raise TypeError(f"`dz` must have z's dtype {z.dtype}, got {dz.dtype}")
    must(limit >= 0, "limit", "be at least 0", limit)


@torch.library.custom_op("cnnvis_fast::restrain", mutates_args=())
def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Subtracts from the gradient a pull away from where the logistic function saturates.

    dz - strength rms(dz) color^T (u - clamp(u, -limit, limit)), u = color @ z, rms over each image

    Args:
        dz: gradient with respect to z, like z.
        z: pictures in decorrelated color space before the sigmoid, float32 or float64 [B, C, H, W].
        color: matrix from decorrelated to RGB channels, [C, C].
        strength: strength of the pull, in units of the gradient's root mean square.
        limit: largest logit that is not pulled.

    Returns:
        The remaining gradient [B, C, H, W], contiguous.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_restrain(dz, z, color, limit)
    return kernels_for(z, z.shape[1]).restrain(dz, z, color, strength, limit)


@restrain.register_fake
def _(dz, z, color, strength, limit):  # type: ignore[no-untyped-def]
    _check_restrain(dz, z, color, limit)
    return torch.empty_like(z, memory_format=torch.contiguous_format)
