"""Steps of poolings, and which convolutions become part of the step that reads them."""

from __future__ import annotations

from typing import Any

from ...kernels import ops
from ...kernels.geometry import Geometry
from .. import rewrites
from ..functions import poolings
from ..steps import Scene, Step, bound, pair
from .convolutions import is_stem, pooled_step, takes


def part_of_reader(scene: Scene, node: Any) -> bool:
    """Returns whether a convolution is part of the step of the rectifier, or pooling, that alone reads it."""
    if not scene.packed or not takes(scene, node):
        return False
    (reader, *others) = node.users
    if others:
        return False
    return rewrites.is_relu(scene.module, reader) or (
        is_stem(scene, node) and max_pool_geometry(scene, reader) is not None
    )


def max_pool_geometry(scene: Scene, node: Any) -> Geometry | None:
    """Returns the windows of a max pooling that has a step; None for anything else."""
    is_rectified = node.target is rewrites.rectified_max_pool
    found = list(node.args[1:]) if is_rectified else rewrites.max_pool_arguments(scene.module, node)
    if found is None or len(scene.shape(node)) != 4:
        return None
    kernel, padding, dilation = pair(found[0]), pair(found[2]), pair(found[3])
    stride = pair(found[1]) if found[1] not in (None, [], ()) else kernel
    too_wide = any(2 * p > k for p, k in zip(padding, kernel, strict=True))
    steps_over = any(d > length for d, length in zip(dilation, scene.shape(node.args[0])[2:], strict=True))
    if kernel[0] * kernel[1] > ops.LARGEST_WINDOW or too_wide or steps_over:
        return None
    return Geometry(kernel, stride, padding, dilation, bool(found[4]))


def max_pool_step(scene: Scene, node: Any) -> Step | None:
    """Makes the step of a max pooling; None for anything else."""
    geometry = max_pool_geometry(scene, node)
    if geometry is None:
        return None
    (x, *_), rectified = node.args, node.target is rewrites.rectified_max_pool
    if part_of_reader(scene, x):
        return pooled_step(scene, node, x, geometry, rectified)
    return Step(
        node,
        (x,),
        ops.max_pool,
        ops.max_pool_backward,
        options={"geometry": geometry, "rectified": rectified},
        backward_options={"geometry": geometry, "size": list(scene.shape(x)[2:])},
        kept=1,
    )


def average_pool_step(scene: Scene, node: Any, *found: Any) -> Step | None:
    """Makes the step of an average pooling of maps, from its arguments in PyTorch's order."""
    if len(scene.shape(node)) != 4:
        return None
    kernel, stride, padding, ceil_mode, count_include_pad, divisor = found
    options = {
        "kernel_size": pair(kernel),
        "stride": pair(stride) if stride not in (None, [], ()) else pair(kernel),
        "padding": pair(padding),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor,
    }
    x = node.args[0]
    return Step(
        node,
        (x,),
        poolings.average_pool,
        poolings.average_pool_backward,
        backward_arguments=(tuple(scene.shape(x)),),
        options=options,
        backward_options=options,
    )


def adaptive_average_pool_step(scene: Scene, node: Any, size: Any) -> Step | None:
    """Makes the step of an adaptive average pooling of maps."""
    if len(scene.shape(node)) != 4:
        return None
    shape = tuple(scene.shape(node.args[0]))
    backward = poolings.adaptive_average_pool_backward
    return Step(node, (node.args[0],), poolings.adaptive_average_pool, backward, (size,), (shape,))


def average_pool_function_step(scene: Scene, node: Any) -> Step | None:
    """Makes the step of `torch.nn.functional.avg_pool2d`."""
    found = bound(
        node,
        kernel_size=None,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    return average_pool_step(scene, node, *found)
