"""Every family of torchvision's classification networks is listed."""

import pytest
import torchvision

from cnnvis_fast.networks.listing import layers
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.names import convolutions

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
]


def test_no_family_of_torchvision_is_left_out():
    zoo = torchvision.models
    every = {zoo.get_model_builder(name).__module__ for name in zoo.list_models(module=zoo)}
    assert {zoo.get_model_builder(name).__module__ for name in FAMILIES} == every


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_is_listed(name):
    network = load_model(name, None)
    table = layers(network)
    assert (table[-1].name, table[-1].channels, table[-1].height) == ("logits", 1000, 0)
    aliases = convolutions(network)
    assert {row.alias for row in table if row.alias} == {*aliases}
    first = next(row for row in table if row.alias == "conv1")
    assert first.receptive_field in (None, max(network.get_submodule(first.name).kernel_size))
    assert all(
        row.receptive_field is None or row.receptive_field == -1 or row.receptive_field > 0 for row in table
    )
