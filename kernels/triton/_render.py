"""`render` and its adjoint: one program per tile of an image, in one pass each.

    x  = cast((warp(s) - mean) / std)                            s = sigmoid(color @ z)
    dz = color^T @ (s (1 - s) warp^T(g / std))

z and dz are [B, C, H, W], contiguous; x is channels-last; g lies in memory as it likes. `docs/warp-adjoint.md`
derives the affine warp. Here positions are counted in pixels off the picture's middle, where least is lost to
rounding: an output pixel o has the raw source M o + origin, with M the matrix of the warp, its off-diagonal
terms scaled by the aspect ratio. Raw sources are folded back into the picture: the plane is paved by cells of
its size, every other one mirrored.

The adjoint of the affine warp *gathers*. An input pixel p has one image in each cell. For every cell that the
warped picture touches, the inverse of M says which output pixels may have their source within a pixel of that
image. Each of these candidates computes its source by the code of `render` itself, counts only if it really
lies in that cell (so none counts twice), and weighs

    max(0, 1 - |x' - p_x|) max(0, 1 - |y' - p_y|)                (x', y') = its reflected and clamped source

So every sum has a fixed order and one writer: no atomics, the same bits at every run. Where candidates would
outnumber the pixels (singular or huge matrices, NaN), all output pixels are gone through once instead.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import configuration, on


@triton.jit
def _tile(height, width, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """The image, first row and first column of this program; images are int64 for what they multiply."""
    across = tl.cdiv(width, BLOCK_W)
    tiles = across * tl.cdiv(height, BLOCK_H)
    program = tl.program_id(0)
    tile = program % tiles
    return (program // tiles).to(tl.int64), tile // across * BLOCK_H, tile % across * BLOCK_W


@triton.jit
def _roll(index, shift, size):
    """(index - shift) mod size for a shift within (-size, size)."""
    moved = index - shift
    moved = tl.where(moved < 0, moved + size, moved)
    return tl.where(moved < size, moved, moved - size)


@triton.jit
def _matrix(warp_ptr, image, height, width):
    """M row by row and the origin: from output pixels to raw sources, both in pixels off the middle."""
    theta = warp_ptr + 6 * image
    xx, xy, x0 = tl.load(theta), tl.load(theta + 1), tl.load(theta + 2)
    yx, yy, y0 = tl.load(theta + 3), tl.load(theta + 4), tl.load(theta + 5)
    aspect = (width * 1.0) / (height * 1.0)
    return xx, xy * aspect, yx / aspect, yy, x0 * (0.5 * width), y0 * (0.5 * height)


@triton.jit
def _source(right, down, matrix):
    """Raw sources x and y of output pixels; the origin comes last, for it may be large."""
    xx, xy, yx, yy, x0, y0 = matrix
    return (xx * right + xy * down) + x0, (yx * right + yy * down) + y0


@triton.jit
def _direction(cell):
    """1 where pixels follow each other in a cell as in the picture, -1 in the odd, mirrored ones."""
    return 1.0 - 2.0 * (cell - 2.0 * tl.floor(0.5 * cell))


@triton.jit
def _fold(raw, size):
    """The cell of a raw source, and the source in the picture: reflected, clamped to the outermost pixels."""
    cell = tl.floor(raw * (1.0 / size) + 0.5)
    inside = _direction(cell) * (raw - cell * size)
    half = 0.5 * (size - 1)
    # Comparisons with NaN are false: whatever the warp, the result is a position that can be read.
    inside = tl.where(inside > -half, inside, -half)
    return cell, tl.where(inside < half, inside, half)


@triton.jit
def _picture(z_ptr, color_ptr, offset, plane, mask, C: tl.constexpr):
    """The C channels of s = sigmoid(color @ z) at these offsets within a plane."""
    z = ()
    for j in tl.static_range(C):
        z = z + (tl.load(z_ptr + j * plane + offset, mask=mask, other=0.0),)
    s = ()
    for i in tl.static_range(C):
        u = tl.load(color_ptr + i * C) * z[0]
        for j in tl.static_range(1, C):
            u += tl.load(color_ptr + (i * C + j)) * z[j]
        s = s + (tl.sigmoid(u),)
    return s


@triton.jit
def _add(total, weight, values, C: tl.constexpr):
    """The tuple total + weight * values."""
    result = ()
    for c in tl.static_range(C):
        result = result + (total[c] + weight * values[c],)
    return result


@triton.jit
def _render_kernel(
    z_ptr,
    color_ptr,
    mean_ptr,
    std_ptr,
    warp_ptr,
    x_ptr,
    height,
    width,
    WARP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    image, first_row, first_column = _tile(height, width, BLOCK_H, BLOCK_W)
    row = first_row + tl.arange(0, BLOCK_H)[:, None]
    column = first_column + tl.arange(0, BLOCK_W)[None, :]
    mask = (row < height) & (column < width)
    plane = tl.cast(height, tl.int64) * width
    z_ptr += image * C * plane

    if WARP == "affine":
        half_w, half_h = 0.5 * (width - 1), 0.5 * (height - 1)
        x, y = _source(column - half_w, row - half_h, _matrix(warp_ptr, image, height, width))
        _, x = _fold(x, width)
        _, y = _fold(y, height)
        left, top = tl.floor(x + half_w), tl.floor(y + half_h)
        s = ()
        for c in tl.static_range(C):
            s = s + (tl.zeros((BLOCK_H, BLOCK_W), tl.float32),)
        for i in tl.static_range(2):
            for j in tl.static_range(2):
                weight = (1.0 - tl.abs(y - (top + i - half_h))) * (1.0 - tl.abs(x - (left + j - half_w)))
                # The second neighbour of the last pixel does not exist, and weighs nothing.
                at_row = tl.minimum(top + i, height - 1.0).to(tl.int64)
                at_column = tl.minimum(left + j, width - 1.0).to(tl.int64)
                s = _add(s, weight, _picture(z_ptr, color_ptr, at_row * width + at_column, plane, mask, C), C)
    else:
        from_row, from_column = row.to(tl.int64), column.to(tl.int64)
        if WARP == "jitter":
            from_row = _roll(from_row, tl.load(warp_ptr + 2 * image) % height, height)
            from_column = _roll(from_column, tl.load(warp_ptr + 2 * image + 1) % width, width)
        s = _picture(z_ptr, color_ptr, from_row * width + from_column, plane, mask, C)

    x_ptr += (image * plane + row.to(tl.int64) * width + column) * C
    for c in tl.static_range(C):
        value = (s[c] - tl.load(mean_ptr + c)) / tl.load(std_ptr + c)
        tl.store(x_ptr + c, value.to(x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _unwarp(
    g_ptr,
    warp_ptr,
    image,
    first_row,
    first_column,
    stride_c,
    stride_h,
    stride_w,
    height,
    width,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """The C channels of warp^T(g) for an affine warp, at the pixels of a tile: see the top of this file."""
    row = first_row + tl.arange(0, BLOCK_H)[:, None]
    column = first_column + tl.arange(0, BLOCK_W)[None, :]
    half_w, half_h = 0.5 * (width - 1), 0.5 * (height - 1)
    right, down = column - half_w, row - half_h
    matrix = _matrix(warp_ptr, image, height, width)
    xx, xy, yx, yy, x0, y0 = matrix

    # Raw sources lie within the spread around the origin. 2^-20 of the reach, 16 units in the last place, is
    # more than rounding moves a source or the image of a pixel.
    spread_x = tl.abs(xx) * half_w + tl.abs(xy) * half_h
    spread_y = tl.abs(yx) * half_w + tl.abs(yy) * half_h
    reach = tl.maximum(tl.abs(x0) + spread_x, tl.abs(y0) + spread_y) + (width + height)
    slack = reach * 2.0**-20
    cell_x0 = tl.floor((x0 - spread_x - slack) / width + 0.5)
    cell_y0 = tl.floor((y0 - spread_y - slack) / height + 0.5)
    cells_x = tl.floor((x0 + spread_x + slack) / width + 0.5) - cell_x0 + 1.0
    cells_y = tl.floor((y0 + spread_y + slack) / height + 0.5) - cell_y0 + 1.0

    # The inverse, and how far from the preimage of p an output pixel can lie that still touches p.
    determinant = xx * yy - xy * yx
    is_singular = determinant == 0.0
    inverse = 1.0 / tl.where(is_singular, 1.0, determinant)
    # Cancellation in the determinant makes the inverse worse than its terms.
    stretch = 1.0 + slack * (tl.abs(xx * yy) + tl.abs(xy * yx)) * tl.abs(inverse)
    extent_x = (tl.abs(yy) + tl.abs(xy)) * tl.abs(inverse) * stretch + slack
    extent_y = (tl.abs(yx) + tl.abs(xx)) * tl.abs(inverse) * stretch + slack
    # At most so many whole numbers lie within an extent of a centre.
    many_x = tl.minimum(tl.floor(2.0 * extent_x) + 1.0, width * 1.0)
    many_y = tl.minimum(tl.floor(2.0 * extent_y) + 1.0, height * 1.0)

    # Beyond 2^20 cells could no longer be told apart. Written so that NaN takes this road, too.
    is_few = (cells_x * cells_y * many_x * many_y < height * 1.0 * width) & (reach < 2.0**20)
    is_all = is_singular | (is_few == 0)
    cells_x = tl.where(is_all, 1.0, cells_x).to(tl.int32)
    cells_y = tl.where(is_all, 1.0, cells_y).to(tl.int32)
    many_x = tl.where(is_all, width, many_x.to(tl.int32))
    many_y = tl.where(is_all, height, many_y.to(tl.int32))
    leeway = tl.where(is_all, float("inf"), 0.0)  # in cells

    total = ()
    for c in tl.static_range(C):
        total = total + (tl.zeros((BLOCK_H, BLOCK_W), tl.float32),)
    for cell in range(cells_x * cells_y):
        cell_x = cell_x0 + cell % cells_x
        cell_y = cell_y0 + cell // cells_x
        start_x, start_y = cell_x * width - x0, cell_y * height - y0
        direction_x, direction_y = _direction(cell_x), _direction(cell_y)

        # A tile whose image in this cell comes from nowhere in the output is spared the search.
        middle_x = start_x + direction_x * (first_column + 0.5 * (BLOCK_W - 1) - half_w)
        middle_y = start_y + direction_y * (first_row + 0.5 * (BLOCK_H - 1) - half_h)
        off_x = tl.abs((yy * middle_x - xy * middle_y) * inverse) - half_w
        off_y = tl.abs((xx * middle_y - yx * middle_x) * inverse) - half_h
        around_x = 0.5 * (tl.abs(yy) * (BLOCK_W - 1) + tl.abs(xy) * (BLOCK_H - 1)) * tl.abs(inverse)
        around_y = 0.5 * (tl.abs(yx) * (BLOCK_W - 1) + tl.abs(xx) * (BLOCK_H - 1)) * tl.abs(inverse)
        is_near = (off_x <= around_x * stretch + extent_x) & (off_y <= around_y * stretch + extent_y)
        rows = tl.where(is_all | is_near, many_y, 0)

        image_x = start_x + direction_x * right
        image_y = start_y + direction_y * down
        base_x = tl.ceil((yy * image_x - xy * image_y) * inverse + half_w - extent_x)
        base_y = tl.ceil((xx * image_y - yx * image_x) * inverse + half_h - extent_y)
        base_x = tl.where(base_x > 0.0, base_x, 0.0)  # where a comparison turns NaN into 0
        base_y = tl.where(base_y > 0.0, base_y, 0.0)
        base_x = tl.where(base_x < width - many_x, base_x, width - many_x).to(tl.int32)
        base_y = tl.where(base_y < height - many_y, base_y, height - many_y).to(tl.int32)
        for i in range(rows):
            for j in range(many_x):
                x, y = _source(base_x + j - half_w, base_y + i - half_h, matrix)
                found_x, x = _fold(x, width)
                found_y, y = _fold(y, height)
                weight_x = 1.0 - tl.abs(x - right)
                weight_y = 1.0 - tl.abs(y - down)
                counts = (tl.abs(found_x - cell_x) <= leeway) & (tl.abs(found_y - cell_y) <= leeway)
                counts = counts & (weight_x > 0.0) & (weight_y > 0.0) & (row < height) & (column < width)
                offset = (base_y + i).to(tl.int64) * stride_h + (base_x + j).to(tl.int64) * stride_w
                weight = tl.where(counts, weight_x * weight_y, 0.0)
                values = ()
                for c in tl.static_range(C):
                    g = tl.load(g_ptr + c * stride_c + offset, mask=counts, other=0.0)
                    values = values + (g.to(tl.float32),)
                total = _add(total, weight, values, C)
    return total


@triton.jit
def _render_backward_kernel(
    g_ptr,
    z_ptr,
    color_ptr,
    std_ptr,
    warp_ptr,
    dz_ptr,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    height,
    width,
    WARP: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    image, first_row, first_column = _tile(height, width, BLOCK_H, BLOCK_W)
    row = (first_row + tl.arange(0, BLOCK_H)[:, None]).to(tl.int64)
    column = (first_column + tl.arange(0, BLOCK_W)[None, :]).to(tl.int64)
    mask = (row < height) & (column < width)
    g_ptr += image * stride_b
    if WARP == "affine":
        g = _unwarp(
            g_ptr,
            warp_ptr,
            image,
            first_row,
            first_column,
            stride_c,
            stride_h,
            stride_w,
            height,
            width,
            C,
            BLOCK_H,
            BLOCK_W,
        )
    else:
        to_row, to_column = row, column
        if WARP == "jitter":
            to_row = _roll(row, -(tl.load(warp_ptr + 2 * image) % height), height)
            to_column = _roll(column, -(tl.load(warp_ptr + 2 * image + 1) % width), width)
        g = ()
        for c in tl.static_range(C):
            at = g_ptr + c * stride_c + to_row * stride_h + to_column * stride_w
            g = g + (tl.load(at, mask=mask, other=0.0).to(tl.float32),)

    plane = tl.cast(height, tl.int64) * width
    offset = row * width + column
    s = _picture(z_ptr + image * C * plane, color_ptr, offset, plane, mask, C)
    for j in tl.static_range(C):
        dz = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
        for i in tl.static_range(C):
            slope = s[i] * (1.0 - s[i]) / tl.load(std_ptr + i)
            dz += tl.load(color_ptr + (i * C + j)) * (slope * g[i])
        tl.store(dz_ptr + (image * C + j) * plane + offset, dz, mask=mask)


def _kind(warp: Tensor | None) -> str:
    if warp is None:
        return "none"
    return "jitter" if warp.ndim == 2 else "affine"


def render(
    z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """X = cast((warp(sigmoid(color @ z)) - mean) / std), see `ops.render`."""
    x = torch.empty(z.shape, dtype=dtype, device=z.device, memory_format=torch.channels_last)
    batch, channels, height, width = z.shape
    choice = configuration("render", z.device)
    tiles = triton.cdiv(height, choice["BLOCK_H"]) * triton.cdiv(width, choice["BLOCK_W"])
    with on(z.device):
        _render_kernel[(batch * tiles,)](
            z,
            color.contiguous(),
            mean.contiguous(),
            std.contiguous(),
            None if warp is None else warp.contiguous(),
            x,
            height,
            width,
            WARP=_kind(warp),
            C=channels,
            **choice,
        )
    return x


def render_backward(g: Tensor, z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Dz = color^T @ (s (1 - s) warp^T(g / std)) with s = sigmoid(color @ z), see `ops.render_backward`."""
    dz = torch.empty_like(z)
    batch, channels, height, width = z.shape
    choice = configuration("render_backward", z.device)
    tiles = triton.cdiv(height, choice["BLOCK_H"]) * triton.cdiv(width, choice["BLOCK_W"])
    with on(z.device):
        _render_backward_kernel[(batch * tiles,)](
            g,
            z,
            color.contiguous(),
            std.contiguous(),
            None if warp is None else warp.contiguous(),
            dz,
            *g.stride(),
            height,
            width,
            WARP=_kind(warp),
            C=channels,
            **choice,
        )
    return dz
