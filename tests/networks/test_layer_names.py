"""Paths, aliases and the output name layers, and an unknown name is answered with the nearest."""

import pytest
from support.listings import Mixed

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.names import convolutions, resolve


def test_the_alias_counts_convolutions_as_they_are_defined():
    assert convolutions(Mixed()) == {"conv1": "late", "conv2": "conv3", "conv3": "unused"}
    assert resolve(Mixed(), "conv1") == "late"


def test_a_module_of_the_aliass_name_wins():
    assert resolve(Mixed(), "conv3") == "conv3"
    assert resolve(Mixed(), "conv2") == "conv3"


def test_a_path_an_alias_and_the_output_resolve():
    network = load_model("texturenet")
    assert resolve(network, "features.14") == "features.14" == resolve(network, "conv5")
    assert resolve(network, "features") == "features"
    assert resolve(network, "logits") == "logits"


@pytest.mark.parametrize(
    "typed, meant", [("feature.14", "features.14"), ("conv6", "conv5"), ("clasifier", "classifier")]
)
def test_an_unknown_layer_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"unknown layer '{typed}'.*did you mean.*\b{meant}\b"):
        resolve(load_model("texturenet"), typed)


def test_a_layer_like_no_other_is_answered_with_the_first():
    with pytest.raises(InputError, match=r"unknown layer 'zzz' of TextureNet: the first are features, "):
        resolve(load_model("texturenet"), "zzz")


@pytest.mark.parametrize("layer", [None, 5, ("conv1",)], ids=repr)
def test_a_layer_is_a_name(layer):
    with pytest.raises(InputError, match="layer"):
        resolve(load_model("texturenet"), layer)
