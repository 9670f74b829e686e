"""Steps of rectifiers and max poolings, and which convolutions become part of them."""

from __future__ import annotations

from typing import Any

from ...kernels import ops
from .. import rewrites
from ..functions import modules
from ..steps import Scene, Step, pair
from .convolutions import convolution_step, is_stem, pooled_step, takes


def rectifiers(scene: Scene, node: Any) -> Step | None:
    """The step of a rectifier, with what it is the rectifier of; None of anything else."""
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
    """Whether a convolution is part of the step of the rectifier, or of the pooling, that alone reads it."""
    if not scene.packed or not takes(scene, node):
        return False
    (reader, *others) = node.users
    if others:
        return False
    return rewrites.is_relu(scene.module, reader) or (
        is_stem(scene, node) and _windows(scene, reader) is not None
    )


def _windows(scene: Scene, node: Any) -> dict[str, list[int]] | None:
    """Kernel, stride, padding and dilation of a max pooling that has a step; None of anything else."""
    found = _pooling(scene, node)
    if found is None or len(scene.shape(node)) != 4:
        return None
    kernel, padding, dilation = pair(found[0]), pair(found[2]), pair(found[3])
    stride = pair(found[1]) if found[1] not in (None, [], ()) else kernel
    too_wide = any(2 * p > k for p, k in zip(padding, kernel, strict=True))
    steps_over = any(d > length for d, length in zip(dilation, scene.shape(node.args[0])[2:], strict=True))
    if kernel[0] * kernel[1] > ops.LARGEST_WINDOW or too_wide or steps_over:
        return None
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def _pooling(scene: Scene, node: Any) -> list[Any] | None:
    if node.target is rewrites.rectified_max_pool:
        return list(node.args[1:])
    return rewrites.max_pool_arguments(scene.module, node)


def max_pools(scene: Scene, node: Any) -> Step | None:
    """The step of a max pooling; None of anything else."""
    windows, found = _windows(scene, node), _pooling(scene, node)
    if windows is None or found is None:
        return None
    x = node.args[0]
    options = {"ceil_mode": bool(found[4]), "rectified": node.target is rewrites.rectified_max_pool}
    if part_of_reader(scene, x):
        return pooled_step(scene, node, x, list(windows.values()), options)
    return Step(
        node,
        (x,),
        ops.max_pool,
        ops.max_pool_backward,
        options={**windows, **options},
        backward_options={**windows, "size": list(scene.shape(x)[2:])},
        kept=1,
    )
