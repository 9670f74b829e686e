"""Convolutions that read few channels, and their input gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..geometry import Geometry
from ..layouts import maps_and_mask, new_maps
from .extension import compiled


def input_gradient(
    level: str, dy: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry, size: list[int]
) -> Tensor:
    """Computes the input gradient of a convolution, through a rectifier where there is a mask."""
    dy = dy.contiguous(memory_format=torch.channels_last)
    mask = None if mask is None else mask.contiguous()
    dx, laid = new_maps(dy, weight.shape[1], size), laid_out_for_gradient(weight)
    compiled.input_gradient(
        level,
        (*dx.shape, *dy.shape[1:]),
        *geometry.pairs,
        dy.data_ptr(),
        0 if mask is None else mask.data_ptr(),
        laid.data_ptr(),
        dx.data_ptr(),
        dy.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return dx


def stem_convolution(
    level: str, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rectified: bool
) -> list[Tensor]:
    """Runs a convolution."""
    x = x.contiguous(memory_format=torch.channels_last)
    made = maps_and_mask(x, weight.shape[0], geometry.output_size(x.shape[2:]), rectified)
    bias = None if bias is None else bias.float().contiguous()
    laid = laid_out(weight)
    compiled.stem_convolution(
        level,
        (*x.shape, *made[0].shape[1:]),
        *geometry.pairs,
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
    level: str, x: Tensor, weight: Tensor, bias: Tensor | None, maps: Tensor, geometry: Geometry
) -> list[Tensor]:
    """Computes the gradient and the value of a linear function of a rectified convolution."""
    x, maps = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, maps))
    bias = None if bias is None else bias.float().contiguous()
    forward, backward = laid_out(weight), laid_out_for_gradient(weight)
    dx, sums = new_maps(x, x.shape[1]), x.new_empty(len(x), dtype=torch.float32)
    compiled.stem_gradient(
        level,
        (*x.shape, *maps.shape[1:]),
        *geometry.pairs,
        x.data_ptr(),
        forward.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        maps.data_ptr(),
        backward.data_ptr(),
        dx.data_ptr(),
        sums.data_ptr(),
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return [dx, sums]


def laid_out(weight: Tensor) -> Tensor:
    """Lays filters out in words, panels of output channels side by side: `StemConvolution` in kernels.h."""
    rows = weight.permute(2, 3, 1, 0).flatten(1, 2)  # [height, a row's pixels and their channels, C']
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    words = pad(rows, (0, 0, 0, -rows.shape[1] % pair)).unflatten(1, (-1, pair))
    return words.unflatten(3, (-1, compiled.PANEL)).permute(3, 0, 1, 4, 2).contiguous()


def laid_out_for_gradient(weight: Tensor) -> Tensor:
    """Lays filters out in words of output channels: `InputGradient` in kernels.h."""
    places = weight.permute(2, 3, 0, 1)  # [height, width, C', C]
    if weight.dtype == torch.bfloat16:  # two channels per word
        places = pad(places, (0, 0, 0, places.shape[2] % 2)).unflatten(2, (-1, 2)).movedim(3, -1)
    return places.contiguous()
