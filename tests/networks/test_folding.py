"""Batch norms are folded into the convolutions before them where nothing else reads those."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.trunks import Network, assert_same_output, pictures, randomized, traced
from torch import Tensor, nn

from cnnvis_fast.networks.trunk import cut


@pytest.mark.parametrize(("layer", "convolution"), [("stem.1", "stem.0"), ("block.bn2", "block.conv2")])
def test_a_batch_norm_as_target_is_the_tail_together_with_its_convolution(
    layer: str, convolution: str
) -> None:
    model = randomized(Network())
    trunk = traced(model, layer)
    assert isinstance(trunk.tail, nn.Conv2d)
    assert not torch.equal(trunk.tail.weight, model.get_submodule(convolution).weight)
    assert convolution not in dict(trunk.module.named_modules())


def test_batch_norms_are_folded_where_a_convolution_feeds_them_alone() -> None:
    norms = [
        m for m in traced(randomized(Network()), "pool").module.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    assert [norm.num_features for norm in norms] == [9]


def test_batch_norms_inside_a_target_are_folded_too() -> None:
    trunk = traced(randomized(Network()), "block")
    assert not [m for m in trunk.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert_same_output(randomized(Network()), "block", trunk)


def test_a_batch_norm_stays_where_something_else_reads_its_convolution() -> None:
    class Peek(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.last(self.bn(x) * x.sigmoid())

    model = randomized(Peek())
    trunk = traced(model, "last")
    assert any(isinstance(module, nn.BatchNorm2d) for module in trunk.module.modules())
    assert_same_output(model, "last", trunk)


@pytest.mark.parametrize("layer", ["bn1", "bn2", "last"])
def test_a_convolution_that_runs_twice_keeps_both_batch_norms(layer: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.bn1, self.bn2, self.last = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.bn2(self.conv(torch.relu(self.bn1(self.conv(x))))))

    model = randomized(Twice())
    assert_same_output(model, layer, traced(model, layer))


def test_a_batch_norm_without_affine_parameters_is_folded_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    model[1].running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
    model[1].running_var.uniform_(0.2, 2)  # type: ignore[union-attr, operator]
    trunk = traced(model, "2")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.module.modules())
    assert_same_output(model, "2", trunk)


def test_a_batch_norm_that_normalizes_by_the_batch_stays_so() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    model.insert(1, nn.BatchNorm2d(4, track_running_stats=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk = cut(model, "3", pictures(1))
    assert_same_output(model, "3", trunk)


@pytest.mark.parametrize("layer", ["conv", "relu", "bn"])
def test_a_padded_convolution_with_other_values_than_zeros_is_not_folded(layer: str) -> None:
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 4, 3))
    model.add_module("conv", nn.Conv2d(4, 5, 3, padding=2, padding_mode="reflect"))
    model.add_module("bn", nn.BatchNorm2d(5))
    model.add_module("relu", nn.ReLU())
    trunk = traced(randomized(model), layer)
    assert trunk.tail is None
    assert_same_output(model, layer, trunk)
