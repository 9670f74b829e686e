"""Finds the step of a node: one rule for each module or function that a program knows."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from .. import rewrites
from ..functions import modules
from ..steps import Scene, Step, bound, pair
from . import structure
from .convolutions import convolution_step, takes
from .rectifiers import max_pools, rectifiers

Rule = Callable[[Scene, fx.Node], Step | None]


def step_for(scene: Scene, node: Any) -> Step:
    """Makes the step of a node that depends on the picture."""
    for rule in (rectifiers, max_pools, _convolutions, _by_module, _by_function):
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


def _kept(
    node: Any, forward: Any, backward: Any, *arguments: Any, backward_arguments: tuple[Any, ...] = ()
) -> Step:
    """Makes a step of one input that keeps one value."""
    return Step(node, (node.args[0],), forward, backward, arguments, backward_arguments, kept=1)


def _clamped(node: Any, low: float, high: float) -> Step:
    return _kept(node, modules.clamped, modules.clamped_backward, low, high, backward_arguments=(low, high))


def _leaky(node: Any, slope: float) -> Step:
    return _kept(node, modules.leaky, modules.leaky_backward, slope, backward_arguments=(slope,))


def _gelu(node: Any, approximate: str) -> Step:
    options = {"approximate": approximate}
    return Step(
        node,
        (node.args[0],),
        modules.gelu,
        modules.gelu_backward,
        options=options,
        backward_options=options,
        kept=1,
    )


def _identity(node: Any) -> Step:
    return Step(node, (node.args[0],), modules.passed_on, modules.passed_on)


def _average_pool(scene: Scene, node: Any, *found: Any) -> Step | None:
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
        modules.average_pool,
        modules.average_pool_backward,
        backward_arguments=(tuple(scene.shape(x)),),
        options=options,
        backward_options=options,
    )


def _adaptive_average_pool(scene: Scene, node: Any, size: Any) -> Step | None:
    if len(scene.shape(node)) != 4:
        return None
    shape = tuple(scene.shape(node.args[0]))
    backward = modules.adaptive_average_pool_backward
    return Step(node, (node.args[0],), modules.adaptive_average_pool, backward, (size,), (shape,))


def _batch_norm(scene: Scene, node: Any, norm: nn.BatchNorm2d) -> Step | None:
    if norm.running_mean is None or norm.running_var is None:
        return None  # each batch's own statistics
    weight, bias = _data(norm.weight), _data(norm.bias)
    statistics = norm.running_mean, norm.running_var, norm.eps
    return Step(
        node,
        (node.args[0],),
        modules.batch_norm,
        modules.batch_norm_backward,
        (weight, bias, *statistics),
        (weight, *statistics),
    )


def _layer_norm(scene: Scene, node: Any, shape: Any, weight: Any, bias: Any, epsilon: float) -> Step | None:
    if any(scene.active(value) for value in (weight, bias)):
        return None
    shape = list(shape)
    arguments, rest = (weight, bias, shape, epsilon), (weight, bias, shape)
    x = node.args[0]
    return Step(node, (x,), modules.layer_norm, modules.layer_norm_backward, arguments, rest, kept=3)


def _linear(scene: Scene, node: Any, weight: Any, bias: Any) -> Step | None:
    if scene.active(weight) or scene.active(bias):
        return None
    return Step(node, (node.args[0],), functional.linear, modules.linear_backward, (weight, bias), (weight,))


def _data(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


_MODULES: dict[type, Callable[[Scene, fx.Node, Any], Step | None]] = {
    nn.Identity: lambda scene, node, module: _identity(node),
    nn.Dropout: lambda scene, node, module: _identity(node),
    nn.Dropout2d: lambda scene, node, module: _identity(node),
    nn.ReLU6: lambda scene, node, module: _clamped(node, 0.0, 6.0),
    nn.Hardtanh: lambda scene, node, module: _clamped(node, module.min_val, module.max_val),
    nn.LeakyReLU: lambda scene, node, module: _leaky(node, module.negative_slope),
    nn.SiLU: lambda scene, node, module: _kept(node, modules.silu, modules.silu_backward),
    nn.GELU: lambda scene, node, module: _gelu(node, module.approximate),
    nn.Hardswish: lambda scene, node, module: _kept(node, modules.hardswish, modules.hardswish_backward),
    nn.Hardsigmoid: lambda scene, node, module: _kept(
        node, modules.hardsigmoid, modules.hardsigmoid_backward
    ),
    nn.Sigmoid: lambda scene, node, module: _kept(node, modules.sigmoid, modules.sigmoid_backward),
    nn.AvgPool2d: lambda scene, node, module: _average_pool(
        scene,
        node,
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda scene, node, module: _adaptive_average_pool(scene, node, module.output_size),
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: lambda scene, node, module: _layer_norm(
        scene, node, module.normalized_shape, _data(module.weight), _data(module.bias), module.eps
    ),
    nn.Linear: lambda scene, node, module: _linear(scene, node, _data(module.weight), _data(module.bias)),
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


def _function(backward: Any, forward: Any) -> Rule:
    return lambda scene, node: _kept(node, forward, backward)


_silu = _function(modules.silu_backward, modules.silu)
_hardswish = _function(modules.hardswish_backward, modules.hardswish)
_hardsigmoid = _function(modules.hardsigmoid_backward, modules.hardsigmoid)
_sigmoid = _function(modules.sigmoid_backward, modules.sigmoid)


def _average_pool_function(scene: Scene, node: Any) -> Step | None:
    found = bound(
        node,
        kernel_size=None,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    return _average_pool(scene, node, *found)


def _layer_norm_function(scene: Scene, node: Any) -> Step | None:
    return _layer_norm(scene, node, *bound(node, normalized_shape=None, weight=None, bias=None, eps=1e-5))


_FUNCTIONS: dict[Any, Rule] = {
    functional.relu6: lambda scene, node: _clamped(node, 0.0, 6.0),
    functional.hardtanh: lambda scene, node: _clamped(node, *bound(node, min_val=-1.0, max_val=1.0)),
    functional.leaky_relu: lambda scene, node: _leaky(node, *bound(node, negative_slope=0.01)),
    functional.gelu: lambda scene, node: _gelu(node, *bound(node, approximate="none")),
    **dict.fromkeys((functional.avg_pool2d, torch.nn.functional.avg_pool2d), _average_pool_function),
    functional.adaptive_avg_pool2d: lambda scene, node: _adaptive_average_pool(
        scene, node, *bound(node, output_size=None)
    ),
    functional.silu: _silu,
    functional.hardswish: _hardswish,
    functional.hardsigmoid: _hardsigmoid,
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), _sigmoid),
    functional.layer_norm: _layer_norm_function,
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
        modules.through_autograd,
        modules.through_autograd_backward,
        tuple(passive),
        options={"function": function, "count": len(active)},
        kept=2,
        explicit=False,
    )
