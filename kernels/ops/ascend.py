"""The update of the parameters, one step of the ascent."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import kernels_for
from .registration import PARAMETER_FLOATS, must


def _check_ascend(
    p: Tensor, m: Tensor, v: Tensor | None, dp: Tensor, schedule: Tensor, band: Tensor | None
) -> None:
    must(p.ndim >= 2 and p.numel() > 0, "p", "be a non-empty [B, ...] tensor", tuple(p.shape))
    if p.dtype not in PARAMETER_FLOATS:
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
    """Takes one step of gradient ascent on the parameters, in place.

    With g = dp - weight_decay * p and, per image, (rate, c1, c2) = schedule:

        Adam (Kingma and Ba 2015):  m = beta1 m + (1 - beta1) g
                                    v = beta2 v + (1 - beta2) <g^2>
                                    p = p + rate c1 m / (sqrt(c2 v) + epsilon)
        momentum (v is None):       m = beta1 m + g / (rms(g) + epsilon),   p = p + rate m

    <g^2> is g^2 itself, or its mean over a band of coefficients, or over the image, as v's shape says. One
    second moment per image keeps the gradient's spectrum, which is what makes pictures look natural; one per
    coefficient is ordinary Adam and whitens it.

    An image whose gradient is not finite is left unchanged (p, m and v), so a picture never turns into NaN.

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
        The mean of dp^2 over every image [B], summed in a fixed order.

    Raises:
        ValueError, TypeError: a shape or a dtype does not fit.
    """
    _check_ascend(p, m, v, dp, schedule, band)
    return kernels_for(p).ascend_(p, m, v, dp, schedule, band, beta1, beta2, epsilon, weight_decay)


@ascend_.register_fake
def _(p, m, v, dp, schedule, band, beta1, beta2, epsilon, weight_decay):  # type: ignore[no-untyped-def]
    _check_ascend(p, m, v, dp, schedule, band)
    return p.new_empty(p.shape[0])
