"""The ops inside a network in plain PyTorch: what every other implementation is held to."""

from __future__ import annotations

import torch
from torch import Tensor

NOWHERE = 255
"""The place of a maximum that passes no gradient."""


def as_rows(x: Tensor) -> Tensor:
    """Channels as the last axis: of maps [B, C, H, W] the second, of anything else the last already."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def as_maps(rows: Tensor) -> Tensor:
    """The inverse of `as_rows`; maps come out channels last."""
    return rows.contiguous().movedim(-1, 1) if rows.ndim == 4 else rows.contiguous()


def _pack(positive: Tensor) -> Tensor:
    """Truth values [..., C] as bits, eight channels a byte, the first in the lowest bit."""
    missing = -positive.shape[-1] % 8
    bits = torch.nn.functional.pad(positive.to(torch.uint8), (0, missing)).unflatten(-1, (-1, 8))
    return bits.mul(2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1, dtype=torch.uint8)


def _unpack(mask: Tensor, channels: int) -> Tensor:
    bits = mask.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (bits & 1).flatten(-2)[..., :channels].bool()


def rectify(parts: list[Tensor], other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Y = relu(cat(parts) + other) and where it is on, see `network.rectify`."""
    rows = [as_rows(part) if other is None else as_rows(part + other) for part in parts]
    mask = torch.cat([_pack(~(part <= 0)) for part in rows], -1)
    return as_maps(torch.relu(torch.cat(rows, -1))), mask


def positive(y: Tensor) -> Tensor:
    """Where y is above 0, see `network.positive`."""
    return _pack(~(as_rows(y) <= 0))


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """The masked sum of gradients, cut into parts, see `network.rectify_backward`."""
    total = as_rows(gradients[0] if len(gradients) == 1 else gradients[0] + gradients[1])
    masks = mask.split([-(-count // 8) for count in channels], -1)
    return [
        as_maps(torch.where(_unpack(bits, part.shape[-1]), part, torch.zeros_like(part)))
        for part, bits in zip(total.split(channels, -1), masks, strict=True)
    ]


def _coordinates(
    place: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Tensor, Tensor]:
    """Rows and columns in the input that `place` points to."""
    taps = place.long()
    down = torch.arange(place.shape[2], device=place.device).view(-1, 1) * stride[0] - padding[0]
    right = torch.arange(place.shape[3], device=place.device) * stride[1] - padding[1]
    return down + taps // kernel[1] * dilation[0], right + taps % kernel[1] * dilation[1]


def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor]:
    """Maxima and where in its window each lies, see `network.max_pool`."""
    x = x.contiguous(memory_format=torch.channels_last)
    y, index = torch.nn.functional.max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
    zero = torch.zeros(index.shape, dtype=torch.uint8, device=x.device)
    first_row, first_column = _coordinates(zero, kernel, stride, padding, dilation)
    rows = (index // x.shape[3] - first_row) // dilation[0]
    place = (rows * kernel[1] + (index % x.shape[3] - first_column) // dilation[1]).to(torch.uint8)
    if rectified:
        place, y = place.masked_fill(y <= 0, NOWHERE), torch.relu(y)
    last = torch.channels_last
    return y.contiguous(memory_format=last), place.contiguous(memory_format=last)


def max_pool_backward(
    dy: Tensor,
    place: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """Each gradient goes to where its maximum was, see `network.max_pool_backward`."""
    somewhere = place != NOWHERE
    rows, columns = _coordinates(place.masked_fill(~somewhere, 0), kernel, stride, padding, dilation)
    # A place that is nowhere may lie in the padding: its zero goes to the first pixel.
    index = torch.where(somewhere, rows * size[1] + columns, 0).flatten(2)
    batch, channels = dy.shape[:2]
    wide = (
        torch.float64 if dy.dtype == torch.float64 else torch.float32
    )  # of bfloat16: rounded once, at the end
    dx = torch.zeros(batch, channels, size[0] * size[1], dtype=wide, device=dy.device)
    dx.scatter_add_(2, index, torch.where(somewhere, dy.to(wide), 0).flatten(2))
    return as_maps(as_rows(dx.view(batch, channels, *size)).to(dy.dtype))


def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sum of h times maps over each image, in float32 at least, see `ops.dot`."""
    wide = torch.promote_types(h.dtype, torch.float32)
    total = as_rows(h.to(wide) * maps.to(wide))
    while total.ndim > 1:  # one axis at a time, as for pictures
        total = total.sum(-1)
    return total
