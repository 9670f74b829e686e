"""Kernels compiled from C++ for the CPU: float32 pictures of up to four channels, networks in bfloat16 too.

The extension is optional: an installation made without a C++ compiler lacks it, and callers ask
:func:`levels` before they take this road.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..moments import second_moment_of
from ..rows import channels_of, maps_and_mask, new_maps, new_mask, pooled_size, rows_of

_MISSING = (
    "the compiled CPU kernels are missing because cnnvis_fast was installed without a working "
    "C++ compiler: install one and reinstall cnnvis_fast"
)

_reason: str | None = None
try:
    from . import _cpu  # type: ignore[attr-defined]  # exists only once compiled
except ModuleNotFoundError:
    _reason = _MISSING
except ImportError as error:
    # A file that is there but does not load (say, without its OpenMP library) needs another cure.
    is_there = error.name == f"{__name__}._cpu"
    _reason = f"the compiled CPU kernels do not load: {error}" if is_there else _MISSING

_LEVELS: tuple[str, ...] = (
    () if _reason is not None else tuple(_cpu.levels())
)  # asked for at every call of an op


def why_unavailable() -> str | None:
    """Give the reason why the compiled kernels cannot be used, or None if they can."""
    return _reason


def levels() -> list[str]:
    """Name the instruction sets that this CPU can run, the widest first; none without the extension.

    Each is a set of kernels of its own: "avx512", "avx2", and "baseline", which every CPU runs.
    """
    return list(_LEVELS)


def multiplies_bfloat16(level: str) -> bool:
    """Tell whether an instruction set's kernels multiply bfloat16 without converting it first."""
    return level == "avx512" and level in _LEVELS and bool(_cpu.multiplies_bfloat16())


def build_info() -> dict[str, object]:
    """Describe the compiled extension and the CPU it runs on.

    Returns:
        ``compiler`` (name and version), ``cxx_standard`` (the value of ``__cplusplus``), ``levels`` (see
        :func:`levels`), and ``openmp`` (file of the library whose threads it uses; empty without threads).

    Raises:
        RuntimeError: If the extension is not available; the message gives the reason.
    """
    if _reason is not None:
        raise RuntimeError(_reason)
    info: dict[str, object] = _cpu.build_info()
    return info


@dataclass(frozen=True)
class Kernels:
    """The ops for one instruction set; arguments as in `kernels.ops` and `network`, which have checked them.

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
        _cpu.render(
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
        _cpu.render_backward(
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
        _cpu.ascend_(
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

    def dot(self, h: Tensor, maps: Tensor) -> Tensor:
        """See `ops.dot`."""
        kept = torch.channels_last if h.ndim == 4 else torch.contiguous_format
        h, maps = h.contiguous(memory_format=kept), maps.contiguous(memory_format=kept)
        sums = h.new_empty(len(h), dtype=torch.float32)
        _cpu.dot(
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

    def restrain(self, dz: Tensor, z: Tensor, color: Tensor, strength: float, limit: float) -> Tensor:
        """See `ops.restrain`."""
        dz, color, out = dz.contiguous(), color.contiguous(), torch.empty_like(z)
        _cpu.restrain(
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
        _cpu.rectify(
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
        _cpu.rectify_backward(
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
        _cpu.max_pool(
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
        _cpu.max_pool_backward(
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
        weight = weight.permute(2, 3, 0, 1)  # [height, width, C', C]
        if dy.dtype == torch.bfloat16:  # two channels a word
            weight = pad(weight, (0, 0, 0, weight.shape[2] % 2)).unflatten(2, (-1, 2)).movedim(3, -1)
        weight = weight.contiguous()
        _cpu.input_gradient(
            self.level,
            (*dx.shape, *dy.shape[1:]),
            list(weight.shape[:2]),
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
        weight = weight.permute(2, 3, 1, 0).flatten(1, 2)  # [height, a row's pixels and their channels, C']
        pair = 2 if x.dtype == torch.bfloat16 else 1
        weight = pad(weight, (0, 0, 0, -weight.shape[1] % pair)).unflatten(1, (-1, pair))
        weight = weight.unflatten(3, (-1, _cpu.PANEL)).permute(3, 0, 1, 4, 2).contiguous()
        self._convolve(
            _cpu.stem_convolution,
            x,
            weight,
            bias,
            made,
            (kernel, stride, padding, dilation),
            (x.dtype == torch.bfloat16,),
        )
        return made

    def winograd(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], rectified: bool
    ) -> list[Tensor]:
        """See `convolutions.winograd`."""
        x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
        size = [length + 2 * p - 2 for length, p in zip(x.shape[2:], padding, strict=True)]
        made = maps_and_mask(x, weight.shape[0] * weight.shape[3], size, rectified)
        self._convolve(_cpu.winograd, x, weight, bias, made, (padding,), ())
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


MOST_CHANNELS: int = 0 if _reason is not None else _cpu.MOST_CHANNELS
"""Pictures of more channels are not for these kernels."""
