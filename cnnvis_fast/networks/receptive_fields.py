"""Computes from the traced graph how much of the picture each position of a module's output sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from .receptive_field_rules import (
    ADAPTIVE_POOLS,
    POINTWISE,
    POINTWISE_MODULES,
    PRODUCTS,
    REDUCTIONS,
    RULES,
    WHOLE,
    WINDOWS,
    Axis,
    Judgement,
    Seen,
    joined,
    judge_module,
    product,
    shifted,
)


def receptive_fields(model: nn.Module, example: Tensor) -> dict[str, int | None]:
    """Returns the longer side in pixels of what one output position of each module sees.

    Args:
        model: the network in eval mode; it runs once.
        example: a batch of one picture as the network reads it.

    Returns:
        The side by dotted name, the empty name being the network's output: -1 for the whole picture, None if
        it cannot be determined from the graph. {} if the network cannot be traced.
    """
    found = windows(model, example)
    return {name: None if seen is None else seen.pixels() for name, seen in found.items()}


def windows(model: nn.Module, example: Tensor) -> dict[str, Judgement]:
    """Returns what the positions of each module's output see, and where the first position's window begins.

    Args:
        model: the network in eval mode; it runs once.
        example: a batch of one picture as the network reads it.

    Returns:
        What they see by dotted name, the empty name being the network's output; None if unknown. {} if the
        network cannot be traced.
    """
    try:
        walk = _Walk(fx.GraphModule(model, _Tracer().trace(model)))
    except Exception:  # any exception: tracing runs the user's code on stand-ins for tensors
        return {}
    try:
        walk.run(example)
    except Exception:  # any exception: what was found before the failure is still valid
        walk.found.pop("", None)
    return walk.found


class _Tracer(fx.Tracer):
    """Does not trace into modules that are judged as a whole, nor into subclasses from other packages."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*WINDOWS, *POINTWISE_MODULES, nn.Linear)) or super().is_leaf_module(
            m, module_qualified_name
        )


class _Walk(fx.Interpreter):
    """Runs a graph and determines what the positions of every tensor see."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[fx.Node, Judgement] = {}
        self.found: dict[str, Judgement] = {}

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        shapes = {node: self.env[node].shape for node in n.all_input_nodes if _is_tensor(self.env[node])}
        result = super().run_node(n)
        first = result[0] if isinstance(result, tuple | list) and result else result
        follows = any(node in self.seen for node in n.all_input_nodes)
        if n.op == "placeholder" and _is_tensor(result):
            self.seen[n] = Seen(Axis(1, 1), Axis(1, 1), frozenset((2, 3)))
        elif follows and _is_tensor(first):  # otherwise it is a constant: a parameter, a size
            self.seen[n] = self._judge(n, args, kwargs, first, shapes)
            self._record(n)
        return result

    def _judge(
        self, node: fx.Node, args: Any, kwargs: Any, result: Tensor, shapes: dict[fx.Node, Sequence[int]]
    ) -> Judgement:
        sources = [source for source in node.all_input_nodes if source in self.seen]
        inputs = [seen for seen in map(self.seen.__getitem__, sources) if seen is not None]
        if len(inputs) < len(sources):
            vector = sum(size > 1 for size in result.shape[1:]) <= 1
            return WHOLE if vector and self._averages(node) else None
        if all(seen == WHOLE for seen in inputs):
            return WHOLE
        if len(sources) == 1 and sources[0] not in shapes:  # an element of a tuple of outputs
            return inputs[0] if _name(node) == "getitem" else None
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if node.op == "output":
            return inputs[0] if len(inputs) == 1 else None
        widest = joined(inputs, [len(shapes.get(source, ())) for source in sources], result.ndim)
        if WHOLE in inputs:
            known = isinstance(module, POINTWISE_MODULES) or _name(node) in POINTWISE
            return WHOLE if known else None
        if module is not None:
            return judge_module(module, widest, args[0], result)
        rule = RULES.get(_name(node))
        if _name(node) in POINTWISE:
            return shifted(widest) if _name(node) == "pad" else widest
        if rule is not None:
            return rule(widest, args, kwargs, result)
        if _name(node) in PRODUCTS:
            return product(widest, len(sources), sources[0] is node.args[0], result.ndim)
        return None

    def _averages(self, node: fx.Node) -> bool:
        """Returns whether a node may be a global pooling."""
        if node.op == "call_module":
            return isinstance(self.fetch_attr(str(node.target)), ADAPTIVE_POOLS)
        return _name(node) in REDUCTIONS or _name(node).startswith("adaptive_")

    def _record(self, node: fx.Node) -> None:
        judged = self.seen[node]
        if node.op == "call_module":
            name = str(node.target)
            self.found.setdefault(name, judged)  # if a module runs twice, its first run counts
            if isinstance(module := self.fetch_attr(name), POINTWISE_MODULES):
                for inner, _ in module.named_modules():
                    self.found.setdefault(f"{name}.{inner}" if inner else name, judged)
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            if path != node.target:
                self.found[path] = judged
        if node.op == "output":
            self.found[""] = judged


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _name(node: fx.Node) -> str:
    """Returns the name of the function or method, without the mark of an in-place variant."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return name if name.startswith("_") else name.rstrip("_")
