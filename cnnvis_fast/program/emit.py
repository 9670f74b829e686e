"""Writes the steps as two straight pieces of code: the forward pass and the backward pass."""

from __future__ import annotations

import inspect
import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from .functions.activations import rectify_backward
from .functions.structure import picked
from .fusions import join_backward, join_forward
from .rules.poolings import part_of_reader
from .rules.table import step_for
from .steps import Scene, Step


@dataclass(frozen=True)
class Emitted:
    """The code of a whole graph.

    Attributes:
        forward: takes pictures to (output, values kept for the backward pass).
        backward: takes (gradient of the output, those values) to the gradient of the pictures and empties the
            list on the way, so that memory is free as early as possible.
        linear: takes (pictures, maps) to the pictures' gradient of sum(maps * output) and these sums, where
            one function computes both; else None.
        steps: the steps of both passes.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule
    linear: fx.GraphModule | None
    steps: list[Step]


def emit(scene: Scene) -> Emitted:
    """Writes the code of a whole graph."""
    forward = _Forward(scene)
    for node in scene.module.graph.nodes:
        forward.add(node)
    backward = _Backward(scene, forward.counts)
    for step in reversed(forward.steps):
        backward.add(step)
    return Emitted(forward.finished(), backward.finished(), _linear(forward.steps), forward.steps)


def _linear(steps: list[Step]) -> fx.GraphModule | None:
    (only,) = steps if len(steps) == 1 else (None,)
    if only is None or only.linear is None:
        return None
    code = _Code()
    x, maps = code.graph.placeholder("x"), code.graph.placeholder("maps")
    arguments, options = code.constants(only.arguments), code.constants(only.options)
    code.graph.output(code.graph.call_function(only.linear, (x, *arguments), {"maps": maps, **options}))
    return code.module()


class _Code:
    """A graph that is being written, and the weights that it names."""

    def __init__(self) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()

    def constants(self, arguments: Any) -> Any:
        """Returns arguments with weights and segments replaced by nodes that fetch them."""
        return map_aggregate(arguments, self._constant)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            for name, known in self.root.named_buffers():
                if known is value:
                    return self.graph.get_attr(name)
            name = f"weight_{len(list(self.root.named_buffers()))}"
            self.root.register_buffer(name, value, persistent=False)
            return self.graph.get_attr(name)
        if isinstance(value, nn.Module):
            name = f"segment_{len(list(self.root.children()))}"
            self.root.add_module(name, value)
            return self.graph.get_attr(name)
        return value

    def module(self) -> fx.GraphModule:
        made = fx.GraphModule(self.root, self.graph)
        made.graph.lint()
        return made


class _Forward(_Code):
    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene
        self.steps: list[Step] = []
        self.counts: list[int] = []
        self.made: dict[fx.Node, fx.Node] = {}
        self.kept: list[fx.Node] = []
        self.output: Any = None

    def add(self, node: Any) -> None:
        if node.op == "output":
            self.output = fx.node.map_arg(node.args[0], self.made.__getitem__)
        elif node.op == "placeholder":
            default = node.args[0] if node.args else inspect.Signature.empty
            self.made[node] = self.graph.placeholder(node.name, default_value=default)
        elif self.scene.active(node):
            if not part_of_reader(self.scene, node):
                self._add_step(step_for(self.scene, node))
        else:
            self._copy(node)

    def _add_step(self, step: Step) -> None:
        # A value that does not depend on the picture, but that the backward pass reads, is kept too.
        extra = [value for value in step.backward_arguments if isinstance(value, fx.Node)]
        extra = [value for value in extra if value.op != "get_attr"]
        arguments = (*step.inputs, *step.arguments)
        arguments, options = map_aggregate(
            (arguments, step.options), lambda a: self.made[a] if isinstance(a, fx.Node) else a
        )
        value = self.graph.call_function(step.forward, self.constants(arguments), self.constants(options))
        kept = [
            self.graph.call_function(operator.getitem, (value, place)) for place in range(1, step.kept + 1)
        ]
        if kept:
            value = self.graph.call_function(operator.getitem, (value, 0))
        self.made[step.node] = value
        self.kept += [*kept, *(self.made[value] for value in extra)]
        self.steps.append(step)
        self.counts.append(len(kept) + len(extra))

    def _copy(self, node: Any) -> None:
        """Copies a node whose value has no gradient."""
        if node.op == "get_attr":
            self.made[node] = self.constants(_attribute(self.scene.module, str(node.target)))
            return
        arguments, options = map_aggregate(
            (node.args, node.kwargs), lambda a: self.made[a] if isinstance(a, fx.Node) else a
        )
        if node.op == "call_module":
            module = self.scene.module.get_submodule(str(node.target))
            called = self.constants(module)
            self.made[node] = self.graph.call_module(str(called.target), arguments, options)
            self.graph.erase_node(called)
        else:
            self.made[node] = self.graph.create_node(node.op, node.target, arguments, options)

    def finished(self) -> fx.GraphModule:
        self.graph.output((self.output, self.kept))
        join_forward(self.graph)
        return self.module()


class _Backward(_Code):
    def __init__(self, scene: Scene, counts: list[int]) -> None:
        super().__init__()
        self.scene, self.counts = scene, list(counts)
        self.gradients: dict[Any, list[fx.Node]] = defaultdict(list)
        given, self.kept = self.graph.placeholder("gradient"), self.graph.placeholder("kept")
        output = next(node for node in scene.module.graph.nodes if node.op == "output").args[0]
        for place, node in enumerate(output if isinstance(output, tuple | list) else [output]):
            alone = isinstance(output, fx.Node)
            got = given if alone else self.graph.call_function(operator.getitem, (given, place))
            if scene.active(node):
                self._give(node, got)

    def add(self, step: Step) -> None:
        kept = [self.graph.call_method("pop", (self.kept,)) for _ in range(self.counts.pop())][::-1]
        values, extra = kept[: step.kept], iter(kept[step.kept :])
        gradient = self._gradient(step)
        if gradient is None:
            return
        if step.forward is picked:
            self.gradients[step.inputs[0], step.arguments[0]].append(gradient)
            return

        def fetched(argument: Any) -> Any:
            if not isinstance(argument, fx.Node):
                return argument
            if argument.op == "get_attr":
                return self.constants(_attribute(self.scene.module, str(argument.target)))
            return next(extra)

        if step.rectified:
            arguments = gradient, values.pop(), self.scene.shape(step.node)[1]
            gradient = self.graph.call_function(rectify_backward, arguments)
        arguments = map_aggregate(step.backward_arguments, fetched)
        made = self.graph.call_function(
            step.backward,
            (gradient, *values, *self.constants(arguments)),
            self.constants(step.backward_options),
        )
        several = len(step.inputs) > 1 or not step.explicit
        for place, node in enumerate(step.inputs):
            self._give(node, self.graph.call_function(operator.getitem, (made, place)) if several else made)

    def _give(self, node: Any, gradient: fx.Node) -> None:
        shapes = self.scene.values[node]
        if not isinstance(shapes, list):
            self.gradients[node].append(gradient)
            return
        for place, shape in enumerate(shapes):
            if shape is not None:
                part = self.graph.call_function(operator.getitem, (gradient, place))
                self.gradients[node, place].append(part)

    def _gradient(self, step: Step) -> Any:
        """Returns the gradient that a step's backward pass takes; None where nothing reads its value."""
        shapes = self.scene.values[step.node]
        if isinstance(shapes, list):
            parts = [self._sum(self.gradients.pop((step.node, place), [])) for place in range(len(shapes))]
            return None if all(part is None for part in parts) else parts
        found = self.gradients.pop(step.node, [])
        if step.pairs == 2 and found:
            return [found[0], self._sum(found[1:])] if len(found) > 1 else found
        return self._sum(found)

    def _sum(self, gradients: list[fx.Node]) -> fx.Node | None:
        total = gradients[0] if gradients else None
        for gradient in gradients[1:]:
            total = self.graph.call_function(torch.add, (total, gradient))
        return total

    def finished(self) -> fx.GraphModule:
        picture = next(node for node in self.scene.module.graph.nodes if node.op == "placeholder")
        self.graph.output(self._sum(self.gradients.pop(picture, [])))
        join_backward(self.graph)
        return self.module()


def _attribute(module: nn.Module, name: str) -> Any:
    *path, last = name.split(".")
    return getattr(module.get_submodule(".".join(path)), last)
