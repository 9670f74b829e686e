"""Convolutions that read few channels: what the compiled kernels are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..geometry import convolved_size, windows_in
from ..layouts import maps_and_mask, new_maps
from .extension import compiled


@dataclass(frozen=True)
class Convolutions:
    """Convolutions that read few channels; arguments as in `kernels.convolutions` and `stem_pools`.

    Threads are those of torch, as many as `torch.get_num_threads()` says; results do not depend on how many.
    """

    level: str

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
        size = convolved_size(x.shape[2:], weight, stride, padding, dilation)
        made = maps_and_mask(x, weight.shape[0], size, rectified)
        bias = None if bias is None else bias.float().contiguous()
        laid = _laid_for_stem(weight)
        compiled.stem_convolution(
            self.level,
            (*x.shape, *made[0].shape[1:]),
            kernel,
            stride,
            padding,
            dilation,
            x.data_ptr(),
            laid.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            made[0].data_ptr(),
            made[1].data_ptr() if rectified else 0,
            x.dtype == torch.bfloat16,
            torch.get_num_threads(),
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

    def stem_pool(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        windows: list[list[int]],
        ceil_mode: bool,
        rectified: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `stem_pools.stem_pool`."""
        x = x.contiguous(memory_format=torch.channels_last)
        between = convolved_size(x.shape[2:], weight, stride, padding, dilation)
        y = new_maps(x, weight.shape[0], windows_in(between, windows, ceil_mode))
        place = torch.empty_like(y, dtype=torch.uint8)
        bias = None if bias is None else bias.float().contiguous()
        laid = _laid_for_stem(weight)
        compiled.stem_pool(
            self.level,
            (*x.shape, weight.shape[0], *between),
            list(weight.shape[2:]),
            stride,
            padding,
            dilation,
            list(y.shape[2:]),
            windows,
            x.data_ptr(),
            laid.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            y.data_ptr(),
            place.data_ptr(),
            rectified,
            x.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return y, place

    def stem_pool_backward(
        self,
        dy: Tensor,
        place: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        windows: list[list[int]],
        size: list[int],
    ) -> Tensor:
        """See `stem_pools.stem_pool_backward`."""
        dy, place = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (dy, place))
        dx, laid = new_maps(dy, weight.shape[1], size), _laid_for_back(weight)
        compiled.stem_pool_backward(
            self.level,
            (*dx.shape, dy.shape[1], *convolved_size(size, weight, stride, padding, dilation)),
            list(weight.shape[2:]),
            stride,
            padding,
            dilation,
            list(dy.shape[2:]),
            windows,
            dy.data_ptr(),
            place.data_ptr(),
            laid.data_ptr(),
            dx.data_ptr(),
            dy.dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
        return dx


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
