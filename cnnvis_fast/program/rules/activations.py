"""Steps of activations: rectifiers together with what they rectify, and functions of one value."""

from __future__ import annotations

from typing import Any

from .. import rewrites
from ..functions import activations
from ..steps import Scene, Step
from .convolutions import convolution_step
from .poolings import part_of_reader


def rectifier_step(scene: Scene, node: Any) -> Step | None:
    """Makes the step of a rectifier together with what it rectifies; None for anything else."""
    if node.target is rewrites.rectified_sum:
        x, other = node.args
        if not (scene.active(x) and scene.active(other)) or scene.shape(x) != scene.shape(other):
            return None
        return Step(
            node,
            (x, other),
            activations.rectified_sum,
            activations.rectified_sum_backward,
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
            activations.rectified_concatenation,
            activations.rectified_concatenation_backward,
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
        activations.rectify,
        activations.rectify_backward,
        backward_arguments=(_channels(scene, node),),
        kept=1,
        pairs=2,
    )


def _channels(scene: Scene, node: Any) -> int:
    shape = scene.shape(node)
    return shape[1] if len(shape) == 4 else shape[-1]


def _kept_step(
    node: Any, forward: Any, backward: Any, *arguments: Any, backward_arguments: tuple[Any, ...] = ()
) -> Step:
    """Makes a step of one input that keeps one value."""
    return Step(node, (node.args[0],), forward, backward, arguments, backward_arguments, kept=1)


def clamped_step(node: Any, low: float, high: float) -> Step:
    """Makes the step of ReLU6 or Hardtanh."""
    return _kept_step(
        node, activations.clamped, activations.clamped_backward, low, high, backward_arguments=(low, high)
    )


def leaky_step(node: Any, slope: float) -> Step:
    """Makes the step of LeakyReLU."""
    return _kept_step(node, activations.leaky, activations.leaky_backward, slope, backward_arguments=(slope,))


def gelu_step(node: Any, approximate: str) -> Step:
    """Makes the step of GELU."""
    options = {"approximate": approximate}
    return Step(
        node,
        (node.args[0],),
        activations.gelu,
        activations.gelu_backward,
        options=options,
        backward_options=options,
        kept=1,
    )


def silu_step(node: Any) -> Step:
    """Makes the step of SiLU."""
    return _kept_step(node, activations.silu, activations.silu_backward)


def hardswish_step(node: Any) -> Step:
    """Makes the step of Hardswish."""
    return _kept_step(node, activations.hardswish, activations.hardswish_backward)


def hardsigmoid_step(node: Any) -> Step:
    """Makes the step of Hardsigmoid."""
    return _kept_step(node, activations.hardsigmoid, activations.hardsigmoid_backward)


def sigmoid_step(node: Any) -> Step:
    """Makes the step of the logistic function."""
    return _kept_step(node, activations.sigmoid, activations.sigmoid_backward)
