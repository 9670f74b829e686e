"""A network that the user hands over is left as it was, and unusual ones get their pictures."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from support.jobs import PLAIN, convolution, same, small
from torch import nn

import cnnvis_fast as cv

pytestmark = pytest.mark.usefixtures("same_random_networks")


def used_network():
    """Half of it in train mode, with a hook of the caller's own."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    network.train()
    network[1].eval()
    network[3].register_forward_hook(lambda *_: None)
    return network


def test_the_network_is_left_as_it_was(tmp_path):
    network = used_network()
    modes = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    state, identities = copy.deepcopy(network.state_dict()), [id(p) for p in network.parameters()]
    cv.maximize(network, "conv2", **PLAIN).robust_scores.sum()
    cv.atlas(network, "all", tmp_path, **PLAIN)
    assert [module.training for module in network.modules()] == modes
    assert [len(module._forward_hooks) for module in network.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [id(p) for p in network.parameters()] == identities
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    assert not hasattr(network, "cnnvis_source")


def test_train_mode_makes_no_other_picture():
    network = used_network()
    first = cv.maximize(network, "conv2", **PLAIN)
    assert same(cv.maximize(network.eval(), "conv2", **PLAIN), first)


def test_a_network_in_double_precision_makes_the_same_picture():
    assert same(cv.maximize(small().double(), "conv2", **PLAIN), cv.maximize(small(), "conv2", **PLAIN))


def test_a_relu_in_place_does_not_hide_what_was_before_it():
    network = nn.Sequential(convolution([[0.1, 0.1, 0.1]], [-5.0]), nn.ReLU(inplace=True))
    found = cv.maximize(network, "conv1", **PLAIN)
    assert found.start_scores[0] == pytest.approx(-5, abs=0.1)
    assert -5 < found.scores[0] < 0
    assert found.status == ["ok"]


def test_a_network_that_cannot_be_traced_says_so_and_gets_its_pictures():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > -1e9 else self.conv(-x)

    network = Branching()
    with pytest.warns(UserWarning, match="hook"):
        found = cv.maximize(network, "conv", **PLAIN)
    assert found.status == ["ok"] * 4
    assert not network.conv._forward_hooks


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_other_channels_get_pictures_of_as_many(channels, tmp_path):
    network = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3))
    options = {"steps": 8, "size": 32, "mean": (0.5,) * channels, "std": (0.5,) * channels, "progress": False}
    found = cv.maximize(network, "conv2", **options)
    assert found.images.shape == (2, channels, 32, 32)
    assert (found.scores > found.start_scores).all()
    found.save(tmp_path)
    with Image.open(tmp_path / "2" / "0000.png") as tile:
        assert tile.size == (32, 32)
        assert np.array_equal(np.asarray(tile), found.pixels[0, 0].numpy())


def test_convolutions_may_be_defined_in_another_order_than_they_run():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.Conv2d(4, 2, 3)
            self.early = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.late(self.early(x))

    assert cv.maximize(Mixed(), "late", **PLAIN).images.shape == (2, 3, 32, 32)


def test_an_odd_size_is_as_good():
    found = cv.maximize(small(), "conv2", **{**PLAIN, "size": 33})
    assert found.images.shape == (5, 3, 33, 33)
    assert found.status == ["ok"] * 5
