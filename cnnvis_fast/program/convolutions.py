"""Convolutions and their input gradients.

Convolutions of 3 x 3 in bfloat16 run by Winograd's algorithm where the CPU multiplies bfloat16, and all
others by oneDNN. The input gradient of a convolution with stride 1 is a convolution with the filters turned
around and the channels exchanged, whose weights are laid out ahead of time just as for the forward pass. That
of a convolution which reads few channels (the first one) is slow in libraries, since their kernels work on
blocks of 8 or 16 channels; it has a kernel of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import network
from .steps import Scene, Step, pair, stand_in


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
    if _has_tiles(scene, weight, options):
        forward, weight = network.winograd, network.winograd_weight(weight)
        options = {"padding": padding, "rectified": rectified}
    elif scene.packed:
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


def _has_tiles(scene: Scene, weight: Tensor, options: dict[str, Any]) -> bool:
    """Whether a convolution runs by Winograd's algorithm."""
    one = options["stride"] == options["dilation"] == [1, 1] and options["groups"] == 1
    fits = weight.shape[2:] == (3, 3) and not any(count % network.PANEL for count in weight.shape[:2])
    return scene.winograd and one and fits and max(options["padding"]) <= 2


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
    return torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, kind, [], ""
    )


def _way_back(
    scene: Scene, shape: list[int], convolution: nn.Conv2d, padding: list[int], out: tuple[int, ...]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Function, arguments and options of the input gradient."""
    weight = convolution.weight.detach()
    stride, dilation = pair(convolution.stride), pair(convolution.dilation)
    if convolution.groups == 1:
        if shape[1] <= network.FEW_CHANNELS and convolution.kernel_size[1] <= network.WIDEST_FILTER:
            return network.input_gradient, (weight, stride, padding, dilation, shape[2:]), {}
        turned_padding = [
            d * (k - 1) - p for d, k, p in zip(dilation, convolution.kernel_size, padding, strict=True)
        ]
        if scene.packed and stride == [1, 1] and min(turned_padding) >= 0:
            turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            options: dict[str, Any] = {"stride": [1, 1], "padding": turned_padding}
            options |= {"dilation": dilation, "groups": 1}
            if _has_tiles(scene, turned, options):
                turned = network.winograd_weight(turned)
                return network.winograd, (turned, None, turned_padding), {}
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
