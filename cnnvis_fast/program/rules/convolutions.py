"""Convolutions and their input gradients.

Where the CPU multiplies bfloat16, kernels of ours run convolutions that read few channels (`stems`) and, of
plain ones (stride and dilation 1, one group, panels of channels), those of 3 x 3 by Winograd's algorithm and
those of 1 x 1; all others run by oneDNN. The input gradient of a convolution with stride 1 is a
convolution with the filters turned around and the channels exchanged, whose weights are laid out ahead of
time just as for the forward pass. That of a convolution which reads few channels (the first one) is slow in
libraries, since their kernels work on blocks of 8 or 16 channels; it has a kernel of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import ops
from ...kernels.layouts import PANEL
from ..functions import stems
from ..functions.convolutions import (
    layout,
    library_backward,
    packed,
    pointwise_convolution,
    rectified_packed,
    rectified_pointwise,
    rectified_winograd,
    winograd_convolution,
)
from ..steps import Scene, Step, pair


def takes(scene: Scene, node: Any) -> bool:
    """Whether a node is a convolution that has a step."""
    convolution = scene.called(node)
    if type(convolution) is not nn.Conv2d or len(node.args) != 1 or node.kwargs:
        return False
    (x,) = node.args
    return padding_of(convolution) is not None and scene.active(x) and len(scene.shape(x)) == 4


def convolution_step(scene: Scene, node: Any, convolved: Any, rectified: bool = False) -> Step:
    """The step of a convolution; of a rectifier with the convolution before it where weights are packed."""
    convolution: Any = scene.called(convolved)
    (x,) = convolved.args
    shape, geometry = list(scene.shape(x)), _geometry(convolution)
    weight, bias = convolution.weight.detach(), _bias(scene, convolved)
    options = geometry | {"groups": convolution.groups}
    forward: Any = torch.conv2d
    linear = None
    if is_stem(scene, convolved):
        forward, options = stems.rectified_stem_convolution if rectified else stems.stem_convolution, geometry
        linear = stems.stem_gradient if rectified and _all_seen(convolution, geometry) else None
    elif scene.packed:
        forward, weight, options = _laid_out(scene, convolved, weight, shape, options, rectified)
    backward, back, back_options = _way_back(scene, shape, convolved, geometry, tuple(scene.shape(node)))
    through = rectified and backward is not stems.input_gradient
    return Step(
        node,
        (x,),
        forward,
        stems.rectified_input_gradient if rectified and not through else backward,
        (weight, bias),
        back,
        options,
        back_options,
        kept=int(rectified),
        pairs=1 + rectified,
        rectified=through,
        linear=linear,
    )


def pooled_step(
    scene: Scene, node: Any, convolved: Any, windows: list[list[int]], options: dict[str, Any]
) -> Step:
    """The step of max pooling with the convolution before it, which reads few channels."""
    convolution: Any = scene.called(convolved)
    (x,) = convolved.args
    weight, geometry = convolution.weight.detach(), _geometry(convolution) | {"windows": windows}
    return Step(
        node,
        (x,),
        stems.stem_pool,
        stems.stem_pool_backward,
        (weight, _bias(scene, convolved)),
        (weight, list(scene.shape(x)[2:])),
        geometry | options,
        geometry,
        kept=1,
    )


def _geometry(convolution: nn.Conv2d) -> dict[str, Any]:
    return {
        "stride": pair(convolution.stride),
        "padding": padding_of(convolution),
        "dilation": pair(convolution.dilation),
    }


def _bias(scene: Scene, node: Any) -> Tensor | None:
    """As the kernels add it where the CPU multiplies bfloat16, in float32; else as the network has it."""
    bias: Tensor | None = getattr(scene.called(node), "bias", None)
    if bias is None or not scene.products:
        return None if bias is None else bias.detach()
    return scene.parameter(node, "bias").float()


def _laid_out(
    scene: Scene,
    convolved: Any,
    weight: Tensor,
    shape: list[int],
    options: dict[str, Any],
    rectified: bool = False,
    back: bool = False,
) -> tuple[Any, Tensor, dict[str, Any]]:
    """Function, weights and options of a convolution, or its way back, whose weights may be laid out."""
    if scene.products and options["stride"] == options["dilation"] == [1, 1] and options["groups"] == 1:
        panels = not any(count % PANEL for count in weight.shape[:2])
        if panels and weight.shape[2:] == (3, 3) and max(options["padding"]) <= 2:
            exact = scene.parameter(convolved, "weight")
            laid = ops.winograd_weight(_turned(exact) if back else exact, weight.dtype)
            return (
                rectified_winograd if rectified else winograd_convolution,
                laid,
                {"padding": options["padding"]},
            )
        if panels and weight.shape[2:] == (1, 1) and options["padding"] == [0, 0]:
            return (
                rectified_pointwise if rectified else pointwise_convolution,
                ops.pointwise_weight(weight),
                {},
            )
    return rectified_packed if rectified else packed, layout(weight, shape, **options), options


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


def is_stem(scene: Scene, node: Any) -> bool:
    """Whether a convolution that has a step reads so few channels that it has a kernel of ours."""
    convolution: Any = scene.called(node)
    plain = convolution.groups == pair(convolution.dilation)[1] == 1
    fits = convolution.out_channels % PANEL == 0 and _reads_few(convolution.weight)
    return scene.products and plain and fits


def _all_seen(convolution: nn.Conv2d, geometry: dict[str, Any]) -> bool:
    """Whether no window lies in the padding above or below the picture."""
    reach: int = geometry["dilation"][0] * (convolution.kernel_size[0] - 1)
    return geometry["padding"][0] <= reach


def _reads_few(weight: Tensor) -> bool:
    return weight.shape[1] <= ops.FEW_CHANNELS and weight.shape[3] <= ops.WIDEST_FILTER


def _way_back(
    scene: Scene, shape: list[int], convolved: Any, geometry: dict[str, Any], out: tuple[int, ...]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Function, arguments and options of the input gradient."""
    convolution: Any = scene.called(convolved)
    weight, dilation = convolution.weight.detach(), geometry["dilation"]
    if convolution.groups == 1:
        if _reads_few(weight):
            return stems.input_gradient, (weight, shape[2:]), geometry
        reach = zip(dilation, convolution.kernel_size, geometry["padding"], strict=True)
        turned_padding = [d * (k - 1) - p for d, k, p in reach]
        if scene.packed and geometry["stride"] == [1, 1] and min(turned_padding) >= 0:
            options: dict[str, Any] = {"stride": [1, 1], "padding": turned_padding}
            options |= {"dilation": dilation, "groups": 1}
            function, laid, options = _laid_out(
                scene, convolved, _turned(weight), list(out), options, back=True
            )
            return function, (laid, None), options
    return library_backward, (weight, tuple(shape)), geometry | {"groups": convolution.groups}


def _turned(weight: Tensor) -> Tensor:
    return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
