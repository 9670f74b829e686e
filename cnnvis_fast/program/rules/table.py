"""Finds the step of a node: one rule for each module or function that a program knows."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from .. import rewrites
from ..functions.autograd import through_autograd, through_autograd_backward
from ..functions.convolutions import linear_backward
from ..functions.structure import passed_on
from ..steps import Scene, Step, bound
from . import structure
from .activations import (
    clamped_step,
    gelu_step,
    hardsigmoid_step,
    hardswish_step,
    leaky_step,
    rectifier_step,
    sigmoid_step,
    silu_step,
)
from .convolutions import convolution_step, takes
from .norms import batch_norm_step, detached, layer_norm_function_step, layer_norm_step
from .poolings import adaptive_average_pool_step, average_pool_function_step, average_pool_step, max_pool_step

Rule = Callable[[Scene, fx.Node], Step | None]


def step_for(scene: Scene, node: Any) -> Step:
    """Makes the step of a node that depends on the picture."""
    for rule in (rectifier_step, max_pool_step, _convolutions, _by_module, _by_function):
        step = rule(scene, node)
        if step is not None:
            return step
    return _through_autograd(scene, node)


def known_modules() -> list[str]:
    """Returns the names of the modules that have a rule; functions have those of their modules."""
    return sorted({kind.__name__ for kind in (nn.Conv2d, nn.ReLU, nn.MaxPool2d, *_MODULES)})


def _convolutions(scene: Scene, node: Any) -> Step | None:
    return convolution_step(scene, node, node) if takes(scene, node) else None


def _by_module(scene: Scene, node: Any) -> Step | None:
    module: Any = scene.called(node)
    rule = _MODULES.get(type(module))
    if rule is None or len(node.args) != 1 or node.kwargs or not scene.active(node.args[0]):
        return None
    return rule(scene, node, module)


def _by_function(scene: Scene, node: Any) -> Step | None:
    if node.op == "call_module":
        return None
    rule = _FUNCTIONS.get(node.target)
    return None if rule is None else rule(scene, node)


def _identity(node: Any) -> Step:
    return Step(node, (node.args[0],), passed_on, passed_on)


def _linear(scene: Scene, node: Any, weight: Any, bias: Any) -> Step | None:
    if scene.active(weight) or scene.active(bias):
        return None
    return Step(node, (node.args[0],), functional.linear, linear_backward, (weight, bias), (weight,))


_MODULES: dict[type, Callable[[Scene, fx.Node, Any], Step | None]] = {
    nn.Identity: lambda scene, node, module: _identity(node),
    nn.Dropout: lambda scene, node, module: _identity(node),
    nn.Dropout2d: lambda scene, node, module: _identity(node),
    nn.ReLU6: lambda scene, node, module: clamped_step(node, 0.0, 6.0),
    nn.Hardtanh: lambda scene, node, module: clamped_step(node, module.min_val, module.max_val),
    nn.LeakyReLU: lambda scene, node, module: leaky_step(node, module.negative_slope),
    nn.SiLU: lambda scene, node, module: silu_step(node),
    nn.GELU: lambda scene, node, module: gelu_step(node, module.approximate),
    nn.Hardswish: lambda scene, node, module: hardswish_step(node),
    nn.Hardsigmoid: lambda scene, node, module: hardsigmoid_step(node),
    nn.Sigmoid: lambda scene, node, module: sigmoid_step(node),
    nn.AvgPool2d: lambda scene, node, module: average_pool_step(
        scene,
        node,
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda scene, node, module: adaptive_average_pool_step(
        scene, node, module.output_size
    ),
    nn.BatchNorm2d: batch_norm_step,
    nn.LayerNorm: lambda scene, node, module: layer_norm_step(
        scene, node, module.normalized_shape, detached(module.weight), detached(module.bias), module.eps
    ),
    nn.Linear: lambda scene, node, module: _linear(
        scene, node, detached(module.weight), detached(module.bias)
    ),
    nn.Flatten: lambda scene, node, module: structure.reshaped(
        scene, node, torch.flatten, (module.start_dim, module.end_dim)
    ),
}


def _dropout(scene: Scene, node: Any) -> Step | None:
    (_, training) = bound(node, p=0.5, training=True)
    return _identity(node) if training is False else None


def _stochastic_depth(scene: Scene, node: Any) -> Step | None:
    (_, _, training) = bound(node, p=None, mode=None, training=True)
    return _identity(node) if training is False else None


_FUNCTIONS: dict[Any, Rule] = {
    functional.relu6: lambda scene, node: clamped_step(node, 0.0, 6.0),
    functional.hardtanh: lambda scene, node: clamped_step(node, *bound(node, min_val=-1.0, max_val=1.0)),
    functional.leaky_relu: lambda scene, node: leaky_step(node, *bound(node, negative_slope=0.01)),
    functional.gelu: lambda scene, node: gelu_step(node, *bound(node, approximate="none")),
    **dict.fromkeys((functional.avg_pool2d, torch.nn.functional.avg_pool2d), average_pool_function_step),
    functional.adaptive_avg_pool2d: lambda scene, node: adaptive_average_pool_step(
        scene, node, *bound(node, output_size=None)
    ),
    functional.silu: lambda scene, node: silu_step(node),
    functional.hardswish: lambda scene, node: hardswish_step(node),
    functional.hardsigmoid: lambda scene, node: hardsigmoid_step(node),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), lambda scene, node: sigmoid_step(node)),
    functional.layer_norm: layer_norm_function_step,
    functional.linear: lambda scene, node: _linear(scene, node, *bound(node, weight=None, bias=None)),
    functional.dropout: _dropout,
    stochastic_depth: _stochastic_depth,
    **dict.fromkeys((torch.flatten, "flatten"), structure.flatten),
    **dict.fromkeys((torch.reshape, "reshape", "view"), structure.reshape),
    **dict.fromkeys((torch.unsqueeze, "unsqueeze"), structure.unsqueeze),
    **dict.fromkeys((torch.squeeze, "squeeze"), structure.squeeze),
    **dict.fromkeys((torch.permute, "permute"), structure.permute),
    **dict.fromkeys((torch.transpose, "transpose"), structure.transpose),
    **dict.fromkeys(rewrites.ADDITIONS, structure.add),
    **dict.fromkeys((torch.mul, operator.mul, operator.imul, "mul", "mul_"), structure.multiply),
    **dict.fromkeys(rewrites.CONCATENATIONS, structure.concatenate),
    **dict.fromkeys((torch.mean, "mean"), structure.mean),
    "contiguous": lambda scene, node: _identity(node),
    operator.getitem: structure.picked,
}


def _through_autograd(scene: Scene, node: Any) -> Step:
    """Makes the step of any node: a graph of its own, with the inputs that have gradients first."""
    active = [value for value in node.all_input_nodes if scene.active(value)]
    passive = [value for value in node.all_input_nodes if not scene.active(value)]
    graph = fx.Graph()
    inner = {value: graph.placeholder(f"input_{place}") for place, value in enumerate(active + passive)}
    graph.output(graph.node_copy(node, inner.__getitem__))
    function = fx.GraphModule(scene.module, graph)
    return Step(
        node,
        tuple(active),
        through_autograd,
        through_autograd_backward,
        tuple(passive),
        options={"function": function, "count": len(active)},
        kept=2,
        explicit=False,
    )
