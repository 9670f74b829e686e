"""Steps of convolutions and their input gradients.

Where the CPU multiplies bfloat16, our kernels run convolutions that read few channels (the `stem` ops) and,
of plain ones (stride and dilation 1, one group, panels of channels), those of 3 x 3 by Winograd's algorithm
and those of 1 x 1; oneDNN runs all others. The input gradient of a convolution with stride 1 is a convolution
with the filters rotated by half a turn and input and output channels exchanged; its weights are laid out
ahead of time just as for the forward pass. Libraries are slow at the input gradient of a convolution that
reads few channels (the first one), since their kernels work on blocks of 8 or 16 channels; our kernel runs
that one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import ops
from ...kernels.geometry import Geometry, Pair
from ...kernels.layouts import PANEL
from ..functions import convolutions
from ..steps import Scene, Step, pair

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A function, its arguments after the inputs, and its options."""


def takes(scene: Scene, node: Any) -> bool:
    """Returns whether a node is a convolution that has a step."""
    convolution = scene.called(node)
    if type(convolution) is not nn.Conv2d or len(node.args) != 1 or node.kwargs:
        return False
    (x,) = node.args
    return padding_of(convolution) is not None and scene.active(x) and len(scene.shape(x)) == 4


def convolution_step(scene: Scene, node: Any, convolved: Any, rectified: bool = False) -> Step:
    """Makes the step of a convolution, or of a rectifier with its convolution where weights are packed."""
    geometry = _geometry(scene.called(convolved))
    forward, arguments, options = _forward(scene, convolved, geometry, rectified)
    backward, backward_arguments, backward_options = _backward(scene, convolved, geometry)
    joins_rectifier = rectified and backward is ops.input_gradient
    if joins_rectifier:
        backward, backward_arguments = convolutions.rectified_input_gradient, backward_arguments[1:]
    at_once = forward is convolutions.rectified_stem_convolution and _all_seen(geometry)
    return Step(
        node,
        convolved.args,
        forward,
        backward,
        arguments,
        backward_arguments,
        options,
        backward_options,
        kept=int(rectified),
        pairs=1 + rectified,
        rectified=rectified and not joins_rectifier,
        linear=ops.stem_gradient if at_once else None,
    )


def pooled_step(scene: Scene, node: Any, convolved: Any, pooling: Geometry, rectified: bool) -> Step:
    """Makes the step of a max pooling together with its convolution, which reads few channels."""
    convolution: Any = scene.called(convolved)
    (x,) = convolved.args
    weight = convolution.weight.detach()
    windows = {"geometry": _geometry(convolution), "pooling": pooling}
    return Step(
        node,
        (x,),
        ops.stem_pool,
        ops.stem_pool_backward,
        (weight, _bias(scene, convolved)),
        (weight,),
        windows | {"rectified": rectified},
        windows | {"size": list(scene.shape(x)[2:])},
        kept=1,
    )


def _geometry(convolution: Any) -> Geometry:
    kernel, stride, dilation = map(pair, (convolution.kernel_size, convolution.stride, convolution.dilation))
    padding: Any = padding_of(convolution)  # `takes` made sure that there is one
    return Geometry(kernel, stride, padding, dilation)


def _bias(scene: Scene, node: Any) -> Tensor | None:
    """Returns a bias as the kernels add it: in float32 where the CPU multiplies bfloat16, else unchanged."""
    bias: Tensor | None = getattr(scene.called(node), "bias", None)
    if bias is None or not scene.products:
        return None if bias is None else bias.detach()
    return scene.parameter(node, "bias").float()


def _forward(scene: Scene, node: Any, geometry: Geometry, rectified: bool) -> Call:
    """Returns the call that runs a convolution."""
    convolution: Any = scene.called(node)
    weight, bias, groups = convolution.weight.detach(), _bias(scene, node), convolution.groups
    plain: Any
    with_mask: Any
    if is_stem(scene, node):
        plain, with_mask = convolutions.stem_convolution, convolutions.rectified_stem_convolution
        return with_mask if rectified else plain, (weight, bias), {"geometry": geometry}
    if not scene.packed:
        options = {name: getattr(geometry, name) for name in ("stride", "padding", "dilation")}
        return torch.conv2d, (weight, bias), options | {"groups": groups}
    found = _product(scene, node, geometry, turned=False) if groups == 1 else None
    if found is not None:
        (plain, with_mask), laid, options = found
    else:
        plain, with_mask = convolutions.packed, convolutions.rectified_packed
        laid = convolutions.layout(weight, list(scene.shape(node.args[0])), geometry, groups)
        options = {"geometry": geometry, "groups": groups}
    return with_mask if rectified else plain, (laid, bias), options


def _backward(scene: Scene, node: Any, geometry: Geometry) -> Call:
    """Returns the call that computes the input gradient of a convolution."""
    convolution: Any = scene.called(node)
    weight, shape = convolution.weight.detach(), scene.shape(node.args[0])
    if convolution.groups == 1 and _reads_few(weight):
        return ops.input_gradient, (None, weight), {"geometry": geometry, "size": list(shape[2:])}
    kernel, stride, padding, dilation, _ = geometry
    reach = zip(dilation, kernel, padding, strict=True)
    down, right = (d * (k - 1) - p for d, k, p in reach)
    if scene.packed and convolution.groups == 1 and stride == (1, 1) and min(down, right) >= 0:
        turned = Geometry(kernel, (1, 1), (down, right), dilation)
        found = _product(scene, node, turned, turned=True)
        if found is not None:
            (plain, _), laid, options = found
            return plain, (laid, None), options
        laid = convolutions.layout(_turned(weight), list(scene.shape(node)), turned, 1)
        return convolutions.packed, (laid, None), {"geometry": turned, "groups": 1}
    options = {"geometry": geometry, "groups": convolution.groups}
    return convolutions.library_backward, (weight, tuple(shape)), options


def _product(
    scene: Scene, node: Any, geometry: Geometry, turned: bool
) -> tuple[tuple[Any, Any], Tensor, dict[str, Any]] | None:
    """Returns our kernel for a convolution of one group, where it has one.

    Args:
        scene: what the rules read.
        node: the convolution.
        geometry: its windows, or those of its input gradient.
        turned: whether its input gradient is asked for, whose filters are turned.

    Returns:
        The plain function and the rectified one, the weights as both read them, and options.
    """
    convolution: Any = scene.called(node)
    weight = convolution.weight.detach()
    kernel, stride, padding, dilation, _ = geometry
    panels = not any(count % PANEL for count in weight.shape[:2])
    if not scene.products or not panels or stride != (1, 1) or dilation != (1, 1):
        return None
    if kernel == (3, 3) and max(padding) <= 2:
        exact = scene.parameter(node, "weight")
        laid = ops.winograd_weight(_turned(exact) if turned else exact, weight.dtype)
        functions = convolutions.winograd_convolution, convolutions.rectified_winograd
        return functions, laid, {"padding": padding}
    if kernel == (1, 1) and padding == (0, 0):
        laid = ops.pointwise_weight(_turned(weight) if turned else weight)
        return (convolutions.pointwise_convolution, convolutions.rectified_pointwise), laid, {}
    return None


def padding_of(convolution: nn.Conv2d) -> Pair | None:
    """Returns rows and columns of zeros around the input; None where the padding is anything else."""
    if convolution.padding_mode != "zeros":
        return None
    if not isinstance(convolution.padding, str):
        return pair(convolution.padding)
    if convolution.padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    return None if any(rows % 2 for rows in total) else (total[0] // 2, total[1] // 2)


def is_stem(scene: Scene, node: Any) -> bool:
    """Returns whether a convolution that has a step reads so few channels that our kernels run it."""
    convolution: Any = scene.called(node)
    plain = convolution.groups == pair(convolution.dilation)[1] == 1
    fits = convolution.out_channels % PANEL == 0 and _reads_few(convolution.weight)
    return scene.products and plain and fits


def _all_seen(geometry: Geometry) -> bool:
    """Returns whether no window lies in the padding above or below the picture."""
    return geometry.padding[0] <= geometry.dilation[0] * (geometry.kernel[0] - 1)


def _reads_few(weight: Tensor) -> bool:
    return weight.shape[1] <= ops.FEW_CHANNELS and weight.shape[3] <= ops.WIDEST_FILTER


def _turned(weight: Tensor) -> Tensor:
    return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
