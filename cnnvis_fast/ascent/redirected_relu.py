"""Makes a network whose rectifiers let some gradient through where they are off, to help dead pictures."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional


def redirected(module: nn.Module) -> nn.Module | None:
    """Returns a copy whose ReLUs pass on a tenth of the gradient besides their own; None without any ReLU.

    The forward pass is unchanged. A picture on which every path to its target is off has no gradient at all;
    a few steps on this copy move it to where it has one.
    """
    module = copy.deepcopy(module)
    found = 0
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.ReLU | nn.ReLU6):
            module.set_submodule(name, _LeakyGradient(isinstance(child, nn.ReLU6)))
            found += 1
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            if node.op == "call_function" and node.target in _RELUS:
                node.target, node.kwargs = _RELUS[node.target], {}
                found += 1
            elif node.op == "call_method" and node.target in ("relu", "relu_"):
                node.op, node.target = "call_function", _leaky_relu
                found += 1
        module.recompile()
    return module if found else None


class _LeakyGradient(nn.Module):
    def __init__(self, capped: bool) -> None:
        super().__init__()
        self.capped = capped

    def forward(self, x: Tensor) -> Tensor:
        return _leaky_relu6(x) if self.capped else _leaky_relu(x)


def _leaky_relu(x: Tensor, *_: Any) -> Tensor:
    return _leak(torch.relu(x), x)


def _leaky_relu6(x: Tensor, *_: Any) -> Tensor:
    return _leak(functional.relu6(x), x)


_RELUS: dict[Any, Any] = {
    **dict.fromkeys((torch.relu, torch.relu_, functional.relu, functional.relu_), _leaky_relu),
    functional.relu6: _leaky_relu6,
}


def _leak(y: Tensor, x: Tensor, share: float = 0.1) -> Tensor:
    return y + share * (x - x.detach())
