"""The only door to the kernels: schemas, fakes, validation, dispatch by device.

Each op is registered with `torch.library` as `cnnvis_fast::<name>`, so `torch.compile` takes it as one node
of one graph. What is checked here runs on the implementation that `backends` chooses: compiled kernels where
there are any for the device, else the plain PyTorch of `reference`.

Shapes: B images of C channels and H x W pixels. A *warp* is None, integer jitter (int64 [B, 2], pixels down
and right, around the edges) or affine ([B, 2, 3] in z's dtype, mapping output to input coordinates in
[-1, 1] as `torch.nn.functional.affine_grid` with `align_corners=False`; bilinear, reflected at the borders).
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import convolutions, network, pointwise, stem_pools, winograd
from .backends import kernels_for, network_kernels_for
from .doors import must

_FLOATS = (torch.float32, torch.float64)
_OUTPUTS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _check_images(z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> None:
    must(z.ndim == 4 and z.numel() > 0, "z", "be a non-empty [B, C, H, W] tensor", tuple(z.shape))
    if z.dtype not in _FLOATS:
        raise TypeError(f"`z` must be float32 or float64, got {z.dtype}")
    batch, channels = z.shape[:2]
    must(z.is_contiguous(), "z", "be contiguous", f"strides {z.stride()}")
    must(color.shape == (channels, channels), "color", f"be [{channels}, {channels}]", tuple(color.shape))
    must(std.shape == (channels,), "std", f"be [{channels}]", tuple(std.shape))
    for name, value in (("color", color), ("std", std)):
        if value.dtype != z.dtype:
            raise TypeError(f"`{name}` must have z's dtype {z.dtype}, got {value.dtype}")
    if warp is None:
        return
    if warp.ndim == 2:
        must(warp.shape == (batch, 2), "warp", f"be [{batch}, 2] for jitter", tuple(warp.shape))
        if warp.dtype != torch.int64:
            raise TypeError(f"`warp` must be int64 for jitter, got {warp.dtype}")
    else:
        must(warp.shape == (batch, 2, 3), "warp", f"be [{batch}, 2] or [{batch}, 2, 3]", tuple(warp.shape))
        if warp.dtype != z.dtype:
            raise TypeError(f"`warp` must have z's dtype {z.dtype} for an affine warp, got {warp.dtype}")


def _check_render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> None:
    _check_images(z, color, std, warp)
    must(mean.shape == std.shape, "mean", f"be {tuple(std.shape)}", tuple(mean.shape))
    if mean.dtype != z.dtype:
        raise TypeError(f"`mean` must have z's dtype {z.dtype}, got {mean.dtype}")
    if dtype not in _OUTPUTS:
        raise TypeError(f"`dtype` must be one of {', '.join(map(str, _OUTPUTS))}, got {dtype}")


@torch.library.custom_op("cnnvis_fast::render", mutates_args=())
def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Turns parameters into what the network reads, in one pass.

    x = cast((warp(sigmoid(color @ z)) - mean) / std)

    Args:
        z: pictures in decorrelated colour space before the sigmoid, float32 or float64 [B, C, H, W].
        color: matrix from decorrelated to RGB channels, [C, C].
        mean: of the network's preprocessing, per channel in [0, 1], [C].
        std: of the network's preprocessing, [C].
        warp: see the module's docstring.
        dtype: of the result.

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
    _check_images(z, color, std, warp)
    must(g.shape == z.shape, "g", f"have z's shape {tuple(z.shape)}", tuple(g.shape))
    if g.dtype not in _OUTPUTS:
        raise TypeError(f"`g` must be one of {', '.join(map(str, _OUTPUTS))}, got {g.dtype}")


@torch.library.custom_op("cnnvis_fast::render_backward", mutates_args=())
def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """The exact adjoint of `render`'s derivative at z.

    dz = color^T @ (s (1 - s) warp^T(g / std)), s = sigmoid(color @ z)

    Args:
        g: gradient with respect to `render`'s result, any float dtype, [B, C, H, W].
        z: what `render` was given; so are `color`, `std` and `warp`.
        color: as for `render`.
        std: as for `render`.
        warp: as for `render`.

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


def _check_ascend(
    p: Tensor, m: Tensor, v: Tensor | None, dp: Tensor, schedule: Tensor, band: Tensor | None
) -> None:
    must(p.ndim >= 2 and p.numel() > 0, "p", "be a non-empty [B, ...] tensor", tuple(p.shape))
    if p.dtype not in _FLOATS:
        raise TypeError(f"`p` must be float32 or float64, got {p.dtype}")
    batch = p.shape[0]
    for name, like in (("m", m), ("dp", dp)):
        must(like.shape == p.shape, name, f"have p's shape {tuple(p.shape)}", tuple(like.shape))
    for name, value in (("m", m), ("v", v), ("dp", dp), ("schedule", schedule)):
        if value is not None and value.dtype != p.dtype:
            raise TypeError(f"`{name}` must have p's dtype {p.dtype}, got {value.dtype}")
    for name, state in (("p", p), ("m", m), ("v", v)):
        if state is not None:
            must(state.is_contiguous(), name, "be contiguous", f"strides {state.stride()}")
    must(schedule.shape == (batch, 3), "schedule", f"be [{batch}, 3]", tuple(schedule.shape))
    if band is not None:
        must(band.shape == p.shape[1:], "band", f"be {tuple(p.shape[1:])}", tuple(band.shape))
        if band.dtype != torch.int64:
            raise TypeError(f"`band` must be int64, got {band.dtype}")
        fits = v is not None and v.ndim == 2 and v.shape[0] == batch
        must(fits, "v", f"be [{batch}, bands] where `band` is given", None if v is None else tuple(v.shape))
    elif v is not None:
        fits = v.shape in (p.shape, (batch,))
        must(fits, "v", f"be {tuple(p.shape)} or [{batch}]", tuple(v.shape))


@torch.library.custom_op("cnnvis_fast::ascend_", mutates_args=("p", "m", "v"))
def ascend_(
    p: Tensor,
    m: Tensor,
    v: Tensor | None,
    dp: Tensor,
    schedule: Tensor,
    band: Tensor | None,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> Tensor:
    """One step of gradient ascent on the parameters, in place.

    With g = dp - weight_decay * p and, per image, (rate, c1, c2) = schedule:

        Adam (Kingma and Ba 2015):  m = beta1 m + (1 - beta1) g
                                    v = beta2 v + (1 - beta2) <g^2>
                                    p = p + rate c1 m / (sqrt(c2 v) + epsilon)
        momentum (v is None):       m = beta1 m + g / (rms(g) + epsilon),   p = p + rate m

    <g^2> is g^2 itself, or its mean over a band of coefficients, or over the image, as v's shape says. One
    second moment per image keeps the gradient's spectrum, which is what makes pictures look natural; one per
    coefficient is ordinary Adam and whitens it.

    An image whose gradient is not finite is left as it was (p, m and v), so a picture never turns into NaN.

    Args:
        p: parameters, float32 or float64 [B, ...].
        m: first moment, like p.
        v: second moment: p's shape, [B, bands] (with `band`), [B], or None for momentum.
        dp: gradient of the objective with respect to p, like p.
        schedule: [B, 3]: rate, and the bias corrections 1 / (1 - beta1^t), 1 / (1 - beta2^t) of step t.
        band: the band of every coefficient, int64, p's shape without B.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: L2 penalty on p.

    Returns:
        Mean of dp^2 of every image [B], summed in a fixed order.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_ascend(p, m, v, dp, schedule, band)
    return kernels_for(p).ascend_(p, m, v, dp, schedule, band, beta1, beta2, epsilon, weight_decay)


@ascend_.register_fake
def _(p, m, v, dp, schedule, band, beta1, beta2, epsilon, weight_decay):  # type: ignore[no-untyped-def]
    _check_ascend(p, m, v, dp, schedule, band)
    return p.new_empty(p.shape[0])


def _check_dot(h: Tensor, maps: Tensor) -> None:
    must(h.ndim >= 1 and h.numel() > 0, "h", "be a non-empty [B, ...] tensor", tuple(h.shape))
    if not h.is_floating_point():
        raise TypeError(f"`h` must be of a float dtype, got {h.dtype}")
    must(maps.shape == h.shape, "maps", f"have h's shape {tuple(h.shape)}", tuple(maps.shape))
    if maps.dtype != h.dtype:
        raise TypeError(f"`maps` must have h's dtype {h.dtype}, got {maps.dtype}")


@torch.library.custom_op("cnnvis_fast::dot", mutates_args=())
def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sum over each image of h times maps: what a folded objective reads off a layer.

    Args:
        h: of a network, any float dtype, [B, ...].
        maps: like h.

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
    _check_images(z, color, z.new_empty(channels), None)
    must(dz.shape == z.shape, "dz", f"have z's shape {tuple(z.shape)}", tuple(dz.shape))
    if dz.dtype != z.dtype:
        raise TypeError(f"`dz` must have z's dtype {z.dtype}, got {dz.dtype}")
    must(limit >= 0, "limit", "be at least 0", limit)


@torch.library.custom_op("cnnvis_fast::restrain", mutates_args=())
def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Takes a pull off the gradient, back from where the logistic function saturates.

    dz - strength rms(dz) color^T (u - clamp(u, -limit, limit)), u = color @ z, rms over each image

    Args:
        dz: gradient with respect to z, like z.
        z: pictures in decorrelated colour space before the sigmoid, float32 or float64 [B, C, H, W].
        color: matrix from decorrelated to RGB channels, [C, C].
        strength: of the pull, in units of the gradient's root mean square.
        limit: the largest logit that is not pulled.

    Returns:
        The gradient that is left [B, C, H, W], contiguous.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_restrain(dz, z, color, limit)
    return kernels_for(z, z.shape[1]).restrain(dz, z, color, strength, limit)


@restrain.register_fake
def _(dz, z, color, strength, limit):  # type: ignore[no-untyped-def]
    _check_restrain(dz, z, color, limit)
    return torch.empty_like(z, memory_format=torch.contiguous_format)


OPS = (
    *(render, render_backward, ascend_, dot, restrain),
    *(*network.OPS, *convolutions.OPS, *stem_pools.OPS, *winograd.OPS, *pointwise.OPS),
)
"""Every op, for those who list them."""
