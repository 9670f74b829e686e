"""The ops inside a network: what the compiled kernels are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..rows import channels_of, maps_and_mask, new_maps, new_mask, pooled_size, rows_of
from .extension import compiled


@dataclass(frozen=True)
class Network:
    """The ops inside a network for one instruction set; arguments as in `kernels.network` and `convolutions`.

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
        windows = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
        y = new_maps(x, x.shape[1], [pooled_size(*axis, ceil_mode) for axis in windows])
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

    def input_gradient(
        self,
        dy: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        size: list[int],
    ) -> Tensor:
        """See `convolutions.input_gradient`."""
        dy = dy.contiguous(memory_format=torch.channels_last)
        mask = None if mask is None else mask.contiguous()
        dx = new_maps(dy, weight.shape[1], size)
        weight, kernel = _laid_for_back(weight), list(weight.shape[2:])
        compiled.input_gradient(
            self.level,
            (*dx.shape, *dy.shape[1:]),
            kernel,
            stride,
            padding,
            dilation,
            dy.data_ptr(),
            0 if mask is None else mask.data_ptr(),
            weight.data_ptr(),
            dx.data_ptr(),
            dy.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return dx

    def stem_convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        rectified: bool,
    ) -> list[Tensor]:
        """See `convolutions.stem_convolution`."""
        x = x.contiguous(memory_format=torch.channels_last)
        kernel = list(weight.shape[2:])
        axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
        made = maps_and_mask(x, weight.shape[0], [pooled_size(*axis, False) for axis in axes], rectified)
        self._convolve(
            compiled.stem_convolution,
            x,
            _laid_for_stem(weight),
            bias,
            made,
            (kernel, stride, padding, dilation),
            (x.dtype == torch.bfloat16,),
        )
        return made

    def stem_gradient(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        maps: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> list[Tensor]:
        """See `convolutions.stem_gradient`."""
        x, maps = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, maps))
        bias = None if bias is None else bias.float().contiguous()
        there, back = _laid_for_stem(weight), _laid_for_back(weight)
        dx, sums = new_maps(x, x.shape[1]), x.new_empty(len(x), dtype=torch.float32)
        compiled.stem_gradient(
            self.level,
            (*x.shape, *maps.shape[1:]),
            list(weight.shape[2:]),
            stride,
            padding,
            dilation,
            x.data_ptr(),
            there.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            maps.data_ptr(),
            back.data_ptr(),
            dx.data_ptr(),
            sums.data_ptr(),
            x.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return [dx, sums]

    def winograd(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool
    ) -> list[Tensor]:
        """See `convolutions.winograd`."""
        x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
        size = [length + 2 * p - 2 for length, p in zip(x.shape[2:], padding, strict=True)]
        made = maps_and_mask(x, weight.shape[0] * weight.shape[3], size, rectified)
        self._convolve(compiled.winograd, x, weight, bias, made, (padding,), ())
        return made

    def _convolve(
        self,
        run: Callable[..., None],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        made: list[Tensor],
        geometry: tuple[list[int], ...],
        dtype: tuple[bool, ...],
    ) -> None:
        """Fills maps and, where there is one, their mask."""
        bias = None if bias is None else bias.float().contiguous()
        run(
            self.level,
            (*x.shape, *made[0].shape[1:]),
            *geometry,
            x.data_ptr(),
            weight.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            made[0].data_ptr(),
            made[1].data_ptr() if len(made) > 1 else 0,
            *dtype,
            torch.get_num_threads(),
        )


def _laid_for_stem(weight: Tensor) -> Tensor:
    """Filters in words, panels of output channels side by side, see `StemConvolution` in kernels.h."""
    rows = weight.permute(2, 3, 1, 0).flatten(1, 2)  # [height, a row's pixels and their channels, C']
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    words = pad(rows, (0, 0, 0, -rows.shape[1] % pair)).unflatten(1, (-1, pair))
    return words.unflatten(3, (-1, compiled.PANEL)).permute(3, 0, 1, 4, 2).contiguous()


def _laid_for_back(weight: Tensor) -> Tensor:
    """Filters in words of output channels, see `InputGradient` in kernels.h."""
    places = weight.permute(2, 3, 0, 1)  # [height, width, C', C]
    if weight.dtype == torch.bfloat16:  # two channels a word
        places = pad(places, (0, 0, 0, places.shape[2] % 2)).unflatten(2, (-1, 2)).movedim(3, -1)
    return places.contiguous()
