"""The ops on pictures: what the compiled kernels are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..second_moment import second_moment_of
from .extension import compiled


@dataclass(frozen=True)
class Pictures:
    """The ops on pictures for one instruction set; arguments as in `kernels.ops`, which has checked them.

    Threads are those of torch, as many as `torch.get_num_threads()` says; results do not depend on how many.
    """

    level: str

    def render(
        self, z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """See `ops.render`."""
        # Other dtypes than these two are one more rounding, or none, away from float32.
        made = dtype if dtype == torch.bfloat16 else torch.float32
        x = torch.empty_like(z, dtype=made, memory_format=torch.channels_last)
        color, mean, std = color.contiguous(), mean.contiguous(), std.contiguous()
        where, _kept = self._pictures(z, warp)
        compiled.render(
            *where,
            z.data_ptr(),
            color.data_ptr(),
            mean.data_ptr(),
            std.data_ptr(),
            x.data_ptr(),
            made == torch.bfloat16,
        )
        return x.to(dtype)

    def render_backward(
        self, g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None
    ) -> Tensor:
        """See `ops.render_backward`."""
        g = g if g.dtype == torch.bfloat16 else g.float()
        g = g.contiguous(memory_format=torch.channels_last)
        dz = torch.empty_like(z)
        color, std = color.contiguous(), std.contiguous()
        where, _kept = self._pictures(z, warp)
        compiled.render_backward(
            *where,
            g.data_ptr(),
            g.dtype == torch.bfloat16,
            z.data_ptr(),
            color.data_ptr(),
            std.data_ptr(),
            dz.data_ptr(),
        )
        return dz

    def _pictures(self, z: Tensor, warp: Tensor | None) -> tuple[tuple[object, ...], Tensor | None]:
        """What both picture kernels are told first, and the tensor that has to live until they return."""
        warp = None if warp is None else warp.contiguous()
        jitter = warp.data_ptr() if warp is not None and warp.ndim == 2 else 0
        affine = warp.data_ptr() if warp is not None and warp.ndim == 3 else 0
        return (self.level, tuple(z.shape), jitter, affine, torch.get_num_threads()), warp

    def ascend_(
        self,
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
        """See `ops.ascend_`."""
        batch = p.shape[0]
        bands = v.shape[1] if v is not None and band is not None else 0
        energy = p.new_empty(batch)
        dp, schedule = dp.contiguous(), schedule.contiguous()
        band = None if band is None else band.contiguous()
        compiled.ascend_(
            self.level,
            batch,
            p.numel() // batch,
            bands,
            torch.get_num_threads(),
            second_moment_of(p, v, band),
            p.data_ptr(),
            m.data_ptr(),
            0 if v is None else v.data_ptr(),
            dp.data_ptr(),
            schedule.data_ptr(),
            0 if band is None else band.data_ptr(),
            beta1,
            beta2,
            epsilon,
            weight_decay,
            energy.data_ptr(),
        )
        return energy

    def restrain(self, dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
        """See `ops.restrain`."""
        dz, color, out = dz.contiguous(), color.contiguous(), torch.empty_like(z)
        compiled.restrain(
            self.level,
            tuple(z.shape),
            dz.data_ptr(),
            z.data_ptr(),
            color.data_ptr(),
            strength,
            limit,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out
