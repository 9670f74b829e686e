"""Networks to cut, and comparisons of a trunk with the network that it was cut from."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnvis_fast.networks.trunk import Trunk, cut

SIZE = 13


class Residual(nn.Module):
    """conv -> BatchNorm -> in-place ReLU -> conv -> BatchNorm, plus its input."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        # One ReLU used twice, as in torchvision's ResNet.
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Branches(nn.Module):
    """Two branches of different kernels, concatenated; a ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(6, 4, 1)
        self.wide = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((functional.relu(self.narrow(x)), functional.relu(self.wide(x), inplace=True)), 1)


class Network(nn.Module):
    """A small network with a bit of everything that real networks contain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.block = Residual()
        self.branches = Branches()
        self.norm = nn.BatchNorm2d(9)  # after a concatenation, so no convolution can absorb it
        self.depthwise = nn.Conv2d(9, 18, 3, groups=9, padding="same")
        self.depthwise_norm = nn.BatchNorm2d(18)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout()
        self.head = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.branches(self.block(self.stem(x)))
        x = self.depthwise_norm(self.depthwise(torch.relu(self.norm(x)))).relu()
        x = self.dropout(self.pool(x).mean((2, 3)))
        return self.head(x)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Sets weights and statistics as if trained: folding new BatchNorms, the identity, would test nothing."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(t: Tensor, low: float, high: float) -> None:
        t.data.copy_(low + (high - low) * torch.rand(t.shape, generator=generator))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.2, 2)
            uniform(module.weight, -0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            uniform(module.weight, -1, 1)
            module.weight.data *= (3 / module.weight[0].numel()) ** 0.5
            if module.bias is not None:
                uniform(module.bias, -0.5, 0.5)
    return model


def pictures(batch: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def hooked(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Returns the whole network's output at its layer, the first time that the layer runs."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # Cloned, because an in-place ReLU overwrites the output that the hook sees.
        outputs.append(output.clone())

    network = copy.deepcopy(model).eval()
    if layer != "logits":
        network.get_submodule(layer).register_forward_hook(keep)
    outputs.append(network(x.clone()))
    return outputs[0]


def output_of(trunk: Trunk, x: Tensor) -> Tensor:
    h = trunk.module(x.clone())
    return h if trunk.tail is None else trunk.tail(h)


def traced(model: nn.Module, layer: str) -> Trunk:
    """Cuts a network and checks that there is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trunk = cut(model, layer, pictures(1))
    assert trunk.traced
    return trunk


def assert_same_output(model: nn.Module, layer: str, trunk: Trunk) -> None:
    x = pictures()
    with torch.no_grad():
        expected, found = hooked(model, layer, x), output_of(trunk, x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


class Deciding(nn.Module):
    """A network that takes one of two branches, depending on the picture, which no graph can represent."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.target = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.later = nn.ReLU(inplace=True), nn.Conv2d(1000, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * 2 if x.mean() > 0 else x - 1
        return self.later(self.relu(self.target(x)))
