"""Cuts out the trunk, the part of a network up to the target, folds its batch norms and freezes it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import InputError, first_line
from ..program.tracing import EndsTracer
from .channels import channel_axis
from .hooks import StopForward, hooked, run_until_stopped
from .names import LOGITS


@dataclass
class Trunk:
    """The part of a network that runs to reach a target.

    Attributes:
        module: maps a picture [B, C, H, W] to `tail`'s input, or to the target's output if there is no tail;
            with several targets, to the tuple of their outputs. It is a frozen copy in eval mode; the
            original network is never changed.
        tail: the target itself if it is linear, so that an objective can be folded over it; never run.
        traced: whether `module` is a graph; if not, it is the whole network with a hook.
    """

    module: nn.Module
    tail: nn.Conv2d | nn.Linear | None
    traced: bool


def cut(model: nn.Module, layers: str | Sequence[str], example: Tensor, fold: bool = True) -> Trunk:
    """Cuts a network after its targets, in float32, and checks the result against the whole network.

    Nothing after the last target remains. BatchNorms are folded into the convolution before them. If there is
    a single target and, after folding, it is a zero-padded convolution or a linear layer, it becomes the
    trunk's tail.

    Args:
        model: any network; not changed.
        layers: canonical name of the target, or several such names; if a module runs more than once, its
            first run counts.
        example: a batch of one picture, as the network reads it.
        fold: whether a linear target may become the tail.

    Returns:
        The trunk. If tracing fails or its result differs from the network's, a warning says so, and the whole
        network runs with a hook that stops at the target.

    Raises:
        InputError: a target yields neither maps, tokens nor a vector, or the network does not run.
    """
    return cut_up(frozen_copy(model), layers, example, fold)


def cut_up(model: nn.Module, layers: str | Sequence[str], example: Tensor, fold: bool = True) -> Trunk:
    """Cuts as `cut` does, but turns the given network, a `frozen_copy`, into the trunk without copying it."""
    layers = [layers] if isinstance(layers, str) else list(layers)
    layer = " and ".join(layers)
    whole = _Hooked(model, layers)
    try:
        with torch.no_grad():
            expected = whole(example.clone())
    except Exception as error:  # any exception: this is the user's network on our picture
        if isinstance(error, InputError):
            raise
        shape = " x ".join(map(str, example.shape[1:]))
        raise InputError(
            f"{type(model).__name__} does not run on a {shape} picture up to {layer} ({first_line(error)}): "
            "try another size"
        ) from error
    targets = [None if name == LOGITS else whole.model.get_submodule(name) for name in layers]
    _check_outputs(layers, targets, expected)
    for whole_targets in ([], targets):  # second try: blocks that cannot be traced inside stay in one piece
        try:
            tracer = EndsTracer(whole_targets)
            graph = fx.GraphModule(whole.model, tracer.trace(whole.model))
            ends = [None if target is None else tracer.ends[target] for target in targets]
            trunk = _cut_graph(graph, ends, fold)
            with torch.no_grad():
                found = trunk.module(example.clone())
                found = trunk.tail(found) if trunk.tail is not None else found
            if _alike(found, expected):
                return trunk
            reason = "the cut network's output differs from the whole one's"
        except Exception as error:  # any exception: tracing runs the user's code on stand-ins for tensors
            reason = first_line(error)
    warnings.warn(
        f"{type(model).__name__} cannot be cut at {layer} ({reason}): running the whole network with a hook, "
        "slower and without torch.compile",
        stacklevel=3,
    )
    return Trunk(whole, None, traced=False)


def _check_outputs(layers: Sequence[str], targets: Sequence[nn.Module | None], outputs: Any) -> None:
    for name, target, output in zip(layers, targets, outputs if len(layers) > 1 else (outputs,), strict=True):
        if channel_axis(output.shape, target) is None or len(output) != 1:
            raise InputError(
                f"the layer {name!r} yields a tensor of shape {list(output.shape)}: expected [N, channels], "
                "[N, channels, height, width] or [N, tokens, channels]; pick a layer that `layers` lists"
            )


def _alike(found: Any, expected: Any) -> bool:
    """Returns whether two outputs, or tuples of them, are equal up to rounding."""
    if isinstance(expected, tuple):
        return all(_alike(one, other) for one, other in zip(found, expected, strict=True))
    scale = float(expected.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(found, expected, rtol=0, atol=max(1e-3 * scale, 1e-12), equal_nan=True)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy of a network in eval mode, float32, on the CPU, without gradients for its weights.

    Raises:
        InputError: the network cannot be copied.
    """
    try:
        return copy.deepcopy(model).eval().requires_grad_(False).float().cpu()
    except Exception as error:  # any exception: copying runs the user's code
        raise InputError(
            f"{type(model).__name__} cannot be copied ({first_line(error)}): undo pruning and "
            "scripting, and pass a plain module"
        ) from error


def to_device(trunk: Trunk, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Returns a copy of the trunk's module in another dtype, in channels-last memory format, on a device."""
    module: Any = copy.deepcopy(trunk.module)  # Any: torch 2.11's stubs lack memory_format
    return module.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)


def _cut_graph(module: fx.GraphModule, ends: Sequence[fx.Node | None], fold: bool) -> Trunk:
    """Cuts a graph after some nodes; None stands for the output."""
    if len(ends) > 1:
        _undo_in_place(module)
    _follow_overwritten(module)
    output = next(node for node in module.graph.nodes if node.op == "output")
    targets = [output.args[0] if end is None else end for end in ends]
    output.args = (tuple(targets) if len(targets) > 1 else targets[0],)
    # By hand, since a check of a value counts as its use: a vision transformer's blocks assert shapes.
    for node in list(reversed(module.graph.nodes))[1:]:
        if node in targets:
            break
        module.graph.erase_node(node)
    _clean(module)
    _fold_batch_norms(module)
    target = output.args[0]
    if len(ends) > 1 or not fold:
        return Trunk(module, None, traced=True)
    tail = _called(module, target)
    simple = len(target.args) == 1 and not target.kwargs
    padded = isinstance(tail, nn.Conv2d) and tail.padding_mode != "zeros"
    if not simple or padded or not isinstance(tail, nn.Conv2d | nn.Linear) or not _plain(tail):
        return Trunk(module, None, traced=True)
    output.args = (target.args[0],)
    _clean(module)
    return Trunk(module, tail, traced=True)


def _undo_in_place(module: fx.GraphModule) -> None:
    """Makes in-place activations out-of-place, so that none overwrites another target's output."""
    for node in module.graph.nodes:
        called: Any = _called(module, node)
        if getattr(called, "inplace", False):
            called.inplace = False
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.target in (torch.relu_, functional.relu_):
            node.target = torch.relu
        elif node.target == "relu_":
            node.target = "relu"


def _called(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _plain(module: nn.Module) -> bool:
    """Returns whether a module computes what its class defines; subclasses and hooks may change that."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return type(module) in (nn.Conv2d, nn.Linear, nn.BatchNorm2d) and not hooks


def _follow_overwritten(module: fx.GraphModule) -> None:
    """Makes every node that reads a tensor overwritten by an in-place activation read the activation.

    The values are the same; once the graph states it, they stay the same when the activation is replaced.
    """
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        in_place = node.kwargs.get("inplace") or getattr(_called(module, node), "inplace", False)
        if in_place or node.target in (torch.relu_, functional.relu_, "relu_"):
            before = node.args[0]
            before.replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])


def _clean(module: fx.GraphModule) -> None:
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _fold_batch_norms(module: fx.GraphModule) -> None:
    """Folds each BatchNorm that is the only reader of a convolution into it; others stay affine nodes."""
    for node in list(module.graph.nodes):
        norm: Any = _called(module, node)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not _plain(norm):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) != 1:
            continue
        convolution = _called(module, before)
        shared = [n for n in module.graph.nodes if n.op == "call_module" and n.target == before.target]
        if isinstance(convolution, nn.Conv2d) and _plain(convolution) and len(shared) == 1:
            module.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
    _clean(module)


class _Hooked(nn.Module):
    """A whole network that stops at its last target and returns the outputs of its targets."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.model, self.layers = model, list(layers)

    def forward(self, x: Tensor) -> Any:
        found: dict[str, Tensor] = {}
        waiting = set(self.layers)
        alone = len(self.layers) == 1

        def keep(name: str, _module: nn.Module, output: Any) -> None:
            if name in waiting:
                # Cloned, since a later operation may overwrite it.
                found[name] = self._tensor(name, output) if alone else self._tensor(name, output).clone()
                waiting.remove(name)
            if not waiting:
                raise StopForward

        targets = {name: self.model.get_submodule(name) for name in self.layers if name != LOGITS}
        with hooked(targets, keep):
            output = run_until_stopped(self.model, x)
        if LOGITS in waiting:
            run_until_stopped(keep, LOGITS, self.model, output)
        for name in waiting:
            raise InputError(f"the layer {name!r} does not run: pick one that `layers` lists")
        return found[self.layers[0]] if alone else tuple(found[name] for name in self.layers)

    def _tensor(self, name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(
                f"the layer {name!r} yields a {type(output).__name__}: expected a tensor; pick a layer "
                "that `layers` lists"
            )
        return output


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
