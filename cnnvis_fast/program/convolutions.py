"""Convolutions and their input gradients.

The input gradient of a convolution with stride 1 is a convolution with the filters turned around and the
channels exchanged, for which oneDNN lays weights out ahead of time just as for the forward pass. That of a
convolution which reads few channels (the first one) is slow in libraries, since their kernels work on blocks
of 8 or 16 output channels. It is made in phases: output pixels (P i + r, Q j + q) of all r < P and q < Q are
channels of one convolution with stride (P, Q) / s at (i, j), the more channels the better they fill a block.
With o s = P i + r + p - k d, the tap k reaches output row o = (P / s) i + (r + p - k d) / s where s divides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import network
from .steps import Scene, Step, pair, stand_in

_FEW_CHANNELS = 4


def convolution_step(scene: Scene, node: Any, convolution: nn.Conv2d, rectified: bool) -> Step | None:
    """The step of a convolution, with the rectifier behind it (weights packed) or without."""
    padding = padding_of(convolution)
    (x,) = node.args
    if padding is None or not scene.active(x) or len(scene.shape(x)) != 4:
        return None
    weight = convolution.weight.detach()
    bias = None if convolution.bias is None else convolution.bias.detach()
    shape = list(scene.shape(x))
    options: dict[str, Any] = {
        "stride": pair(convolution.stride),
        "padding": padding,
        "dilation": pair(convolution.dilation),
        "groups": convolution.groups,
    }
    forward: Any = torch.conv2d
    if scene.packed:
        weight = packed(weight, shape, **options)
        forward, options["rectified"] = packed_convolution, rectified
    backward, back, back_options = _way_back(scene, shape, convolution, padding, tuple(scene.shape(node)))
    return Step(node, (x,), forward, backward, (weight, bias), back, options, back_options)


def padding_of(convolution: nn.Conv2d) -> list[int] | None:
    """Rows and columns of zeros around the input; None where it is not just that."""
    if convolution.padding_mode != "zeros":
        return None
    if not isinstance(convolution.padding, str):
        return pair(convolution.padding)
    if convolution.padding == "valid":
        return [0, 0]
    total = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    return None if any(rows % 2 for rows in total) else [rows // 2 for rows in total]


def packed(
    weight: Tensor, shape: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Weights as oneDNN wants them for inputs of that shape."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, shape)


def packed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rectified: bool = False,
) -> Tensor:
    """A convolution with weights laid out for oneDNN, the rectifier applied as values are written."""
    kind = "relu" if rectified else "none"
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, kind, [], ""
    )


def _way_back(
    scene: Scene, shape: list[int], convolution: nn.Conv2d, padding: list[int], out: tuple[int, ...]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Function, arguments and options of the input gradient."""
    weight = convolution.weight.detach()
    stride, dilation = pair(convolution.stride), pair(convolution.dilation)
    if convolution.groups == 1:
        if shape[1] <= _FEW_CHANNELS and max(shape[2:]) > 1:
            phases = Phases.best(shape, out, weight, stride, padding, dilation)
            kernel = phases.kernel(weight)
            options: dict[str, Any] = {"stride": phases.stride, "padding": phases.padding}
            options |= {"dilation": [1, 1], "groups": 1}
            if scene.packed:
                kernel = packed(kernel, list(out), **options)
            return in_phases, (kernel, scene.packed, phases.crop), options
        turned_padding = [
            d * (k - 1) - p for d, k, p in zip(dilation, convolution.kernel_size, padding, strict=True)
        ]
        if scene.packed and stride == [1, 1] and min(turned_padding) >= 0:
            turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            options = {"stride": [1, 1], "padding": turned_padding, "dilation": dilation, "groups": 1}
            return packed_convolution, (packed(turned, list(out), **options), None), options
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": convolution.groups}
    return library_backward, (weight, tuple(shape)), options


def library_backward(
    dy: Tensor,
    weight: Tensor,
    shape: tuple[int, ...],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """The input gradient as the library has it."""
    gradients = torch.ops.aten.convolution_backward(
        dy,
        stand_in(dy, shape),
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [True, False, False],
    )
    return gradients[0]


def in_phases(dy: Tensor, kernel: Tensor, is_packed: bool, crop: list[list[int]], **options: Any) -> Tensor:
    """The input gradient of a convolution that reads few channels; `crop` is `Phases.crop`."""
    if is_packed:
        y = packed_convolution(dy, kernel, None, **options)
    else:
        y = torch.conv2d(dy, kernel, None, **options)
    return network.interleave(y, *crop)


@dataclass(frozen=True)
class _Axis:
    """One axis of the phases.

    Attributes:
        phases: P, output pixels that are channels of one position.
        step: P / s, the convolution's stride.
        taps: filter position k and phase r to position in the kernel.
        length: of the kernel.
        padding: of the convolution, both sides.
        first: position of the result that the first phases lie in.
    """

    phases: int
    step: int
    taps: dict[tuple[int, int], int]
    length: int
    padding: int
    first: int

    @staticmethod
    def make(size: int, out: int, kernel: int, s: int, p: int, d: int, step: int) -> _Axis:
        phases = s * step
        reach = {
            (k, r): (r + p - k * d) // s
            for k in range(kernel)
            for r in range(phases)
            if (r + p - k * d) % s == 0
        }
        before = min(0, *reach.values())
        length = max(0, *reach.values()) - before + 1
        positions, first = -(-size // phases), 0
        # More padding than is needed on the left makes up for what is missing on the right.
        while out + 2 * (first * step - before) < (positions + first - 1) * step + length:
            first += 1
        taps = {key: place - before for key, place in reach.items()}
        return _Axis(phases, step, taps, length, first * step - before, first)


@dataclass(frozen=True)
class Phases:
    """How an input gradient is cut into phases.

    Attributes:
        size: height and width of the input.
        rows: the vertical axis.
        columns: the horizontal one.
    """

    size: list[int]
    rows: _Axis
    columns: _Axis

    @staticmethod
    def best(
        shape: list[int],
        out: tuple[int, ...],
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> Phases:
        """The cut with the fewest multiplications a pixel, channels rounded up to the library's blocks."""
        block = 16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 8

        def cost(phases: Phases) -> float:
            count = phases.rows.phases * phases.columns.phases
            channels = -(-shape[1] * count // block) * block
            return phases.rows.length * phases.columns.length * channels / count

        candidates = []
        for steps in itertools.product((1, 2, 4), repeat=2):
            axes = [
                _Axis.make(
                    shape[2 + i],
                    out[2 + i],
                    weight.shape[2 + i],
                    stride[i],
                    padding[i],
                    dilation[i],
                    steps[i],
                )
                for i in (0, 1)
            ]
            candidates.append(Phases(shape[2:], *axes))
        return min(candidates, key=cost)

    @property
    def stride(self) -> list[int]:
        """Of the convolution."""
        return [self.rows.step, self.columns.step]

    @property
    def padding(self) -> list[int]:
        """Of the convolution."""
        return [self.rows.padding, self.columns.padding]

    @property
    def crop(self) -> list[list[int]]:
        """Phases, first positions and sizes, as `interleave` takes them."""
        rows, columns = self.rows, self.columns
        return [[rows.phases, columns.phases], [rows.first, columns.first], self.size]

    def kernel(self, weight: Tensor) -> Tensor:
        """Filters [phases down x phases across x C, C_out, ...] of the convolution."""
        rows, columns = self.rows, self.columns
        made = weight.new_zeros(
            rows.phases, columns.phases, weight.shape[1], weight.shape[0], rows.length, columns.length
        )
        for (k, r), place in rows.taps.items():
            for (m, q), across in columns.taps.items():
                made[r, q, :, :, place, across] = weight[:, :, k, m].T
        return made.flatten(0, 2).contiguous(memory_format=torch.channels_last)
