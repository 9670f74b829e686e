"""The ops inside a network: what the compiled kernels are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import windows_in
from ..layouts import channels_of, new_maps, new_mask, rows_of
from .extension import compiled


@dataclass(frozen=True)
class Network:
    """The ops inside a network for one instruction set; arguments as in `kernels.network`.

    Threads are those of torch, as many as `torch.get_num_threads()` says; results do not depend on how many.
    """

    level: str

    def dot(self, h: Tensor, maps: Tensor) -> Tensor:
        """See `ops.dot`."""
        kept = torch.channels_last if h.ndim == 4 else torch.contiguous_format
        h, maps = h.contiguous(memory_format=kept), maps.contiguous(memory_format=kept)
        sums = h.new_empty(len(h), dtype=torch.float32)
        compiled.dot(
            self.level,
            len(h),
            h.numel() // len(h),
            h.data_ptr(),
            maps.data_ptr(),
            h.dtype == torch.bfloat16,
            sums.data_ptr(),
            torch.get_num_threads(),
        )
        return sums

    def rectify(self, parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `network.rectify`."""
        counts = [channels_of(part) for part in parts]
        y, mask = new_maps(parts[0], sum(counts)), new_mask(parts[0], counts)
        self._rectify(parts, other, y.data_ptr(), mask)
        return y, mask

    def positive(self, y: Tensor) -> Tensor:
        """See `network.positive`."""
        mask = new_mask(y, [channels_of(y)])
        self._rectify([y], None, 0, mask)
        return mask

    def _rectify(self, parts: list[Tensor], other: Tensor | None, y: int, mask: Tensor) -> None:
        rows = [rows_of(part) for part in parts]
        other, other_stride = (None, 0) if other is None else rows_of(other)
        compiled.rectify(
            self.level,
            parts[0].numel() // channels_of(parts[0]),
            [(channels_of(part), stride, part.data_ptr()) for part, stride in rows],
            0 if other is None else other.data_ptr(),
            other_stride,
            y,
            mask.data_ptr(),
            parts[0].dtype == torch.bfloat16,
            torch.get_num_threads(),
        )

    def rectify_backward(self, gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
        """See `network.rectify_backward`."""
        g, g_stride = rows_of(gradients[0])
        other, other_stride = rows_of(gradients[1]) if len(gradients) > 1 else (None, 0)
        mask = mask.contiguous()
        parts = [new_maps(g, count) for count in channels]
        compiled.rectify_backward(
            self.level,
            g.numel() // channels_of(g),
            [(count, count, part.data_ptr()) for count, part in zip(channels, parts, strict=True)],
            g.data_ptr(),
            g_stride,
            0 if other is None else other.data_ptr(),
            other_stride,
            mask.data_ptr(),
            g.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return parts

    def max_pool(
        self,
        x: Tensor,
        kernel: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
        rectified: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `network.max_pool`."""
        x = x.contiguous(memory_format=torch.channels_last)
        windows = kernel, stride, padding, dilation
        y = new_maps(x, x.shape[1], windows_in(x.shape[2:], windows, ceil_mode))
        place = torch.empty_like(y, dtype=torch.uint8)
        compiled.max_pool(
            self.level,
            (*x.shape, *y.shape[2:]),
            kernel,
            stride,
            padding,
            dilation,
            x.data_ptr(),
            y.data_ptr(),
            place.data_ptr(),
            rectified,
            x.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return y, place

    def max_pool_backward(
        self,
        dy: Tensor,
        place: Tensor,
        kernel: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        size: list[int],
    ) -> Tensor:
        """See `network.max_pool_backward`."""
        dy = dy.contiguous(memory_format=torch.channels_last)
        place = place.contiguous(memory_format=torch.channels_last)
        dx = new_maps(dy, dy.shape[1], size)
        compiled.max_pool_backward(
            self.level,
            (*dx.shape, *dy.shape[2:]),
            kernel,
            stride,
            padding,
            dilation,
            dy.data_ptr(),
            dx.data_ptr(),
            place.data_ptr(),
            dy.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return dx
