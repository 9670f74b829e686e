"""Steps of normalizations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..functions import norms
from ..steps import Scene, Step, bound


def batch_norm_step(scene: Scene, node: Any, norm: nn.BatchNorm2d) -> Step | None:
    """Makes the step of a BatchNorm with fixed statistics; None without them."""
    if norm.running_mean is None or norm.running_var is None:
        return None  # each batch's own statistics
    weight, bias = detached(norm.weight), detached(norm.bias)
    statistics = norm.running_mean, norm.running_var, norm.eps
    return Step(
        node,
        (node.args[0],),
        norms.batch_norm,
        norms.batch_norm_backward,
        (weight, bias, *statistics),
        (weight, *statistics),
    )


def layer_norm_step(
    scene: Scene, node: Any, shape: Any, weight: Any, bias: Any, epsilon: float
) -> Step | None:
    """Makes the step of a LayerNorm; None if its weight or bias depends on the picture."""
    if any(scene.active(value) for value in (weight, bias)):
        return None
    shape = list(shape)
    arguments, rest = (weight, bias, shape, epsilon), (weight, bias, shape)
    x = node.args[0]
    return Step(node, (x,), norms.layer_norm, norms.layer_norm_backward, arguments, rest, kept=3)


def detached(parameter: Tensor | None) -> Tensor | None:
    """Returns a parameter without its graph."""
    return None if parameter is None else parameter.detach()


def layer_norm_function_step(scene: Scene, node: Any) -> Step | None:
    """Makes the step of `torch.nn.functional.layer_norm`."""
    return layer_norm_step(scene, node, *bound(node, normalized_shape=None, weight=None, bias=None, eps=1e-5))
