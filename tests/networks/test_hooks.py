"""Hooks see what modules read and yield, end a forward pass, and are always removed."""

import pytest
import torch
from torch import nn

from cnnvis_fast.networks.hooks import StopForward, hooked, run_until_stopped


def hooks(network):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))


def test_a_hook_sees_names_modules_and_outputs_in_the_order_in_which_they_run(network):
    seen = []
    with hooked({"last": network[2], "first": network[0]}, lambda *given: seen.append(given)):
        output = network(torch.zeros(1, 1, 2, 2))
    assert [(name, module) for name, module, _ in seen] == [("first", network[0]), ("last", network[2])]
    assert seen[1][2] is output
    assert hooks(network) == 0


def test_a_hook_before_a_module_sees_its_inputs(network):
    seen, x = [], torch.zeros(1, 1, 2, 2)
    with hooked({"first": network[0]}, lambda _name, _module, inputs: seen.append(inputs), before=True):
        network(x)
    assert len(seen) == 1
    assert seen[0][0] is x


def test_a_hook_ends_a_pass_even_if_the_network_catches_exceptions(network):
    ran = []

    def careless(x):
        try:
            return network(x)
        except Exception:
            return "caught"

    def stop(name, _module, _output):
        ran.append(name)
        raise StopForward

    with hooked({"0": network[0], "2": network[2]}, stop):
        assert run_until_stopped(careless, torch.zeros(1, 1, 2, 2)) is None
    assert ran == ["0"]
    assert hooks(network) == 0
    assert run_until_stopped(careless, torch.zeros(1, 1, 2, 2)).shape == (1, 3, 2, 2)


def test_hooks_are_removed_after_an_error(network):
    with pytest.raises(RuntimeError), hooked({"0": network[0]}, lambda *_: None):
        network(torch.zeros(1, 5, 2, 2))
    assert hooks(network) == 0
