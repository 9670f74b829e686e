"""The ops in plain PyTorch: the oracle for compiled kernels, and the path where there is none.

Nothing here is differentiated by autograd: `render_backward` is the explicit adjoint of `render`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_BILINEAR, _REFLECTION = 0, 2  # the codes of `aten::grid_sampler_2d_backward`
NOWHERE = 255
"""The place of a maximum that passes no gradient."""


def _mix(matrix: Tensor, z: Tensor) -> Tensor:
    """Applies a [C, C] matrix to the channels of [B, C, H, W]."""
    return torch.matmul(matrix, z.flatten(2)).view_as(z)


def _roll(x: Tensor, shift: Tensor) -> Tensor:
    """Rolls every image of [B, C, H, W] down and right by its own integers [B, 2], around the edges."""
    batch, _, height, width = x.shape
    rows = (torch.arange(height, device=x.device) - shift[:, :1]) % height
    columns = (torch.arange(width, device=x.device) - shift[:, 1:]) % width
    image = torch.arange(batch, device=x.device)
    return x[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _grid(warp: Tensor, shape: torch.Size) -> Tensor:
    # Positions that are no numbers make PyTorch's sampler read outside of the picture.
    finite = warp.nan_to_num(0.0, 1e12, -1e12)
    return affine_grid(finite, list(shape), align_corners=False)


def _warp(x: Tensor, warp: Tensor | None) -> Tensor:
    if warp is None:
        return x
    if warp.ndim == 2:
        return _roll(x, warp)
    return grid_sample(
        x, _grid(warp, x.shape), mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _unwarp(g: Tensor, warp: Tensor | None) -> Tensor:
    """The adjoint of `_warp`."""
    if warp is None:
        return g
    if warp.ndim == 2:
        return _roll(g, -warp)
    # The second argument only lends its shape: the gradient of the grid is not asked for.
    gradients = torch.ops.aten.grid_sampler_2d_backward(
        g, g, _grid(warp, g.shape), _BILINEAR, _REFLECTION, False, [True, False]
    )
    return gradients[0]


def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """X = cast((warp(sigmoid(color @ z)) - mean) / std), see `ops.render`."""
    x = _warp(torch.sigmoid(_mix(color, z)), warp)
    x = (x - mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
    # A fresh tensor in every case: the dispatcher forbids an op to hand back memory that it was given.
    out = torch.empty(z.shape, dtype=dtype, device=z.device, memory_format=torch.channels_last)
    return out.copy_(x)


def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Dz = color^T @ (s (1 - s) warp^T(g / std)) with s = sigmoid(color @ z), see `ops.render_backward`."""
    g = torch.empty_like(z, memory_format=torch.contiguous_format).copy_(g).div_(std.view(-1, 1, 1))
    s = torch.sigmoid(_mix(color, z))
    slope = torch.addcmul(s, s, s, value=-1)
    return _mix(color.T.contiguous(), slope.mul_(_unwarp(g, warp)))


def _mean_square(x: Tensor) -> Tensor:
    """Mean of squares of every image, [B, ...] to [B].

    Summed one axis at a time: a single sum of one image would be split among threads, and its bits would
    depend on the batch and on the number of threads.
    """
    total = x.square().flatten(3) if x.ndim > 4 else x.square()
    while total.ndim > 1:
        total = total.sum(-1)
    return total / x[0].numel()


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
    """One step of ascent in place, returns the gradient's mean square per image, see `ops.ascend_`."""
    energy = _mean_square(dp)
    g, mean_square = dp, energy
    if weight_decay:
        g = dp - weight_decay * p
        mean_square = _mean_square(g)
    rate, debias1, debias2 = (column.view(-1, *[1] * (p.ndim - 1)) for column in schedule.unbind(1))
    new_v = None
    if v is None:
        rms = mean_square.sqrt().view_as(rate)
        new_m = torch.addcdiv(beta1 * m, g, rms + epsilon)
        new_p = p + rate * new_m
    else:
        new_m = m.lerp(g, 1 - beta1)
        if band is not None:
            index = band.flatten().expand(len(p), -1)
            total = torch.zeros_like(v).scatter_add_(1, index, g.square().flatten(1))
            count = torch.zeros_like(v[0]).scatter_add_(0, index[0], v.new_ones(band.numel()))
            new_v = v.lerp(total / count.clamp_min(1), 1 - beta2)
            spread = new_v.gather(1, index).view_as(p)
        else:
            new_v = v.lerp(g.square() if v.shape == p.shape else mean_square, 1 - beta2)
            spread = new_v if v.shape == p.shape else new_v.view_as(rate)
        new_p = torch.addcdiv(p, rate * debias1 * new_m, (spread * debias2).sqrt() + epsilon)
    finite = energy.isfinite()
    for old, new in ((p, new_p), (m, new_m), (v, new_v)):
        if old is not None and new is not None:
            old.copy_(torch.where(finite.view(-1, *[1] * (old.ndim - 1)), new, old))
    return energy


def dot(h: Tensor, maps: Tensor) -> Tensor:
    """Sum of h times maps over each image, in float32 at least, see `ops.dot`."""
    wide = torch.promote_types(h.dtype, torch.float32)
    total = _rows(h.to(wide) * maps.to(wide))
    while total.ndim > 1:  # one axis at a time, as in `_mean_square`
        total = total.sum(-1)
    return total


def restrain(dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
    """Dz - strength rms(dz) color^T (u - clamp(u)) with u = color @ z, see `ops.restrain`."""
    logits = _mix(color, z)
    beyond = _mix(color.T.contiguous(), logits - logits.clamp(-limit, limit))
    return dz - strength * _mean_square(dz).sqrt().view(-1, 1, 1, 1) * beyond


def _rows(x: Tensor) -> Tensor:
    """Channels as the last axis: of maps [B, C, H, W] the second, of anything else the last already."""
    return x.movedim(1, -1) if x.ndim == 4 else x


def _maps(rows: Tensor) -> Tensor:
    """The inverse of `_rows`; maps come out channels last."""
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
    """Y = relu(cat(parts) + other) and where it is on, see `ops.rectify`."""
    rows = [_rows(part) if other is None else _rows(part + other) for part in parts]
    mask = torch.cat([_pack(~(part <= 0)) for part in rows], -1)
    return _maps(torch.relu(torch.cat(rows, -1))), mask


def positive(y: Tensor) -> Tensor:
    """Where y is above 0, see `ops.positive`."""
    return _pack(~(_rows(y) <= 0))


def rectify_backward(gradients: list[Tensor], mask: Tensor, channels: list[int]) -> list[Tensor]:
    """The masked sum of gradients, cut into parts, see `ops.rectify_backward`."""
    total = _rows(gradients[0] if len(gradients) == 1 else gradients[0] + gradients[1])
    masks = mask.split([-(-count // 8) for count in channels], -1)
    return [
        _maps(torch.where(_unpack(bits, part.shape[-1]), part, torch.zeros_like(part)))
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
    """Maxima and where in its window each lies, see `ops.max_pool`."""
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
    """Each gradient goes to where its maximum was, see `ops.max_pool_backward`."""
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
    return _maps(_rows(dx.view(batch, channels, *size)).to(dy.dtype))


def input_gradient(
    dy: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    size: list[int],
) -> Tensor:
    """The input gradient of a convolution, see `convolutions.input_gradient`."""
    if mask is not None:
        (dy,) = rectify_backward([dy], mask, [dy.shape[1]])
    x = dy.new_empty(1).expand(dy.shape[0], weight.shape[1], *size)  # only its shape is read
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
    )
    return _maps(_rows(gradients[0]))


def _finished(y: Tensor, bias: Tensor | None, dtype: torch.dtype, rectified: bool) -> list[Tensor]:
    """What a convolution does with its sums [B, C, H, W]: maps, and their mask where they are rectified."""
    y = y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)
    if not rectified:
        return [_maps(_rows(y.to(dtype)))]
    return list(rectify([y.to(dtype)], None))


def stem_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    rectified: bool,
) -> list[Tensor]:
    """A convolution, see `convolutions.stem_convolution`."""
    working = torch.promote_types(x.dtype, torch.float32)
    y = torch.nn.functional.conv2d(x.to(working), weight.to(working), None, stride, padding, dilation)
    return _finished(y, bias, x.dtype, rectified)


def stem_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    maps: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> list[Tensor]:
    """A linear function of a rectified convolution, see `convolutions.stem_gradient`."""
    h, mask = stem_convolution(x, weight, bias, stride, padding, dilation, True)
    dx = input_gradient(maps, mask, weight, stride, padding, dilation, list(x.shape[2:]))
    return [dx, dot(h, maps)]


# Winograd's matrices, as Lavin and Gray have them: of pixels and of sums.
_PIXELS = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_SUMS = ((1, 1, 1, 0), (0, 1, -1, -1))


def winograd(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool
) -> list[Tensor]:
    """A convolution of 3 x 3 in the domain of Winograd's tiles, see `convolutions.winograd`."""
    working = torch.promote_types(x.dtype, torch.float32)
    panels, places, words, panel, _ = weight.shape
    filters = weight.permute(1, 0, 3, 2, 4).reshape(places, panels * panel, 2 * words).to(working)
    size = [length + 2 * p - 2 for length, p in zip(x.shape[2:], padding, strict=True)]
    (down, before), (right, left) = (
        (2 * ((rows + 1) // 2) + 2 - length - p, p)
        for rows, length, p in zip(size, x.shape[2:], padding, strict=True)
    )
    padded = torch.nn.functional.pad(x.to(working), (left, right, before, down))
    pixels, sums = (torch.tensor(rows, dtype=working, device=x.device) for rows in (_PIXELS, _SUMS))
    turned = torch.einsum("ia,bkyxac,jc->ijbyxk", pixels, padded.unfold(2, 4, 2).unfold(3, 4, 2), pixels)
    turned = turned.to(x.dtype).to(working)
    products = (
        (turned.flatten(2, 4).flatten(0, 1) @ filters.mT).unflatten(1, turned.shape[2:5]).unflatten(0, (4, 4))
    )
    y = torch.einsum("ia,acbyxn,jc->bnyixj", sums, products, sums).flatten(4, 5).flatten(2, 3)
    return _finished(y[:, :, : size[0], : size[1]], bias, x.dtype, rectified)
