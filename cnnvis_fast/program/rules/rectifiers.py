"""Steps of rectifiers and max poolings, and which convolutions become part of them."""

from __future__ import annotations

from typing import Any

from ...kernels import ops
from ...kernels.geometry import Geometry
from .. import rewrites
from ..functions import modules
from ..steps import Scene, Step, pair
from .convolutions import convolution_step, is_stem, pooled_step, takes


def rectifiers(scene: Scene, node: Any) -> Step | None:
    """Makes the step of a rectifier together with what it rectifies; None for anything else."""
    if node.target is rewrites.rectified_sum:
        x, other = node.args
        if not (scene.active(x) and scene.active(other)) or scene.shape(x) != scene.shape(other):
            return None
        return Step(
            node,
            (x, other),
            modules.rectified_sum,
            modules.rectified_sum_backward,
            backward_arguments=(_channels(scene, node),),
            kept=1,
            pairs=2,
        )
    if node.target is rewrites.rectified_concatenation:
        (parts,) = node.args
        if not all(scene.active(part) for part in parts) or len(scene.shape(node)) not in (2, 4):
            return None
        return Step(
            node,
            tuple(parts),
            modules.rectified_concatenation,
            modules.rectified_concatenation_backward,
            backward_arguments=([scene.shape(part)[1] for part in parts],),
            kept=1,
            pairs=2,
        )
    if not rewrites.is_relu(scene.module, node):
        return None
    x = node.args[0]
    if part_of_reader(scene, x):
        return convolution_step(scene, node, x, rectified=True)
    return Step(
        node,
        (x,),
        modules.rectify,
        modules.rectify_backward,
        backward_arguments=(_channels(scene, node),),
        kept=1,
        pairs=2,
    )


def _channels(scene: Scene, node: Any) -> int:
    shape = scene.shape(node)
    return shape[1] if len(shape) == 4 else shape[-1]


def part_of_reader(scene: Scene, node: Any) -> bool:
    """Returns whether a convolution is part of the step of the rectifier, or pooling, that alone reads it."""
    if not scene.packed or not takes(scene, node):
        return False
    (reader, *others) = node.users
    if others:
        return False
    return rewrites.is_relu(scene.module, reader) or (
        is_stem(scene, node) and _pooling(scene, reader) is not None
    )


def _pooling(scene: Scene, node: Any) -> Geometry | None:
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


def max_pools(scene: Scene, node: Any) -> Step | None:
    """Makes the step of a max pooling; None for anything else."""
    geometry = _pooling(scene, node)
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
