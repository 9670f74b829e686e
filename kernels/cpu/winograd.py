"""Convolutions as products of matrices: what the compiled kernels are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import TILES, size_of_3x3, windows_in
from ..layouts import maps_and_mask, new_maps
from .extension import compiled


@dataclass(frozen=True)
class Products:
    """Convolutions of 3 x 3 and 1 x 1 in bfloat16; arguments as in `kernels.winograd` and `pointwise`.

    Threads are those of torch, as many as `torch.get_num_threads()` says; results do not depend on how many.
    """

    level: str

    def winograd(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: list[int],
        rectified: bool,
        mask: Tensor | None,
    ) -> list[Tensor]:
        """See `winograd.winograd`."""
        size = size_of_3x3(x.shape[2:], padding)
        made = maps_and_mask(x, weight.shape[0] * weight.shape[3], size, rectified)
        gate = None if mask is None else mask.contiguous()
        marked = made[1] if rectified else None
        self._winograd(x, list(x.shape[2:]), gate, weight, bias, padding, made[0], mask=marked)
        return made

    def winograd_pooled(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: list[int],
        ceil_mode: bool,
        rectified: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `winograd.winograd_pooled`."""
        size = size_of_3x3(x.shape[2:], padding)
        y = new_maps(x, weight.shape[0] * weight.shape[3], windows_in(size, TILES, ceil_mode))
        place = torch.empty_like(y, dtype=torch.uint8)
        self._winograd(x, list(x.shape[2:]), None, weight, bias, padding, y, place=place, rectified=rectified)
        return y, place

    def winograd_unpooled(
        self, dy: Tensor, place: Tensor, weight: Tensor, padding: list[int], size: list[int]
    ) -> Tensor:
        """See `winograd.winograd_unpooled`."""
        place = place.contiguous(memory_format=torch.channels_last)
        made = size_of_3x3(size, padding)
        y = new_maps(dy, weight.shape[0] * weight.shape[3], made)
        self._winograd(dy, size, place, weight, None, padding, y, unpooled=True)
        return y

    def _winograd(
        self,
        x: Tensor,
        size: list[int],
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        padding: list[int],
        y: Tensor,
        mask: Tensor | None = None,
        place: Tensor | None = None,
        rectified: bool = False,
        unpooled: bool = False,
    ) -> None:
        """Fills y and what comes with it; `size` is that of the maps that are convolved."""
        x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
        bias = None if bias is None else bias.float().contiguous()
        out = size_of_3x3(size, padding)
        compiled.winograd(
            self.level,
            (*x.shape[:2], *size, y.shape[1], *out),
            list(x.shape[2:] if unpooled else y.shape[2:]),
            padding,
            x.data_ptr(),
            0 if gate is None else gate.data_ptr(),
            unpooled,
            weight.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            y.data_ptr(),
            0 if mask is None else mask.data_ptr(),
            0 if place is None else place.data_ptr(),
            rectified,
            torch.get_num_threads(),
        )

    def pointwise(self, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> list[Tensor]:
        """See `pointwise.pointwise`."""
        x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
        channels, out_channels = x.shape[1], weight.shape[0] * weight.shape[2]
        made = maps_and_mask(x, out_channels, list(x.shape[2:]), rectified)
        bias = None if bias is None else bias.float().contiguous()
        compiled.pointwise(
            self.level,
            (x.numel() // channels, channels, out_channels),
            x.data_ptr(),
            weight.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            made[0].data_ptr(),
            made[1].data_ptr() if rectified else 0,
            torch.get_num_threads(),
        )
        return made
