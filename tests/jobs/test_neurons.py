"""The objectives for single neurons and for logits."""

import pytest
import torch
from support.jobs import FILTERS, LAST, OPTIONS, PLAIN, activation, same, small

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError

pytestmark = pytest.mark.usefixtures("same_random_networks")
NEURON = {**PLAIN, "objective": "neuron"}


def test_a_neuron_is_the_central_one_by_itself():
    central = cv.maximize(small(), "conv2", [1], **NEURON)
    assert same(central, cv.maximize(small(), "conv2", [1], **NEURON, position=(16, 16)))
    assert not same(central, cv.maximize(small(), "conv2", [1], **NEURON, position=(15, 16)))


def test_a_neurons_score_is_that_of_its_position(texturenet):
    found = cv.maximize(texturenet, "conv5", FILTERS, objective="neuron", position=(2, 11), **OPTIONS)
    expected = activation(texturenet, LAST, found.images)[range(3), FILTERS, 2, 11]
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert (found.scores > found.start_scores).all()


@pytest.mark.parametrize("layer, reach", [("conv1", 1), ("conv2", 2)])
def test_a_neuron_changes_only_what_it_sees(layer, reach):
    still = {"parameters": "pixel", "transforms": "none", **NEURON}
    # Both start from the same noise, so that they differ where one of them has moved.
    first, second = (cv.maximize(small(), layer, [1], position=p, **still).pixels for p in ((5, 5), (20, 26)))
    changed = (first != second).any(1)[0]
    expected = torch.zeros(32, 32, dtype=torch.bool)
    for row, column in ((5, 5), (20, 26)):
        expected[row - reach : row + reach + 1, column - reach : column + reach + 1] = True
    assert not (changed & ~expected).any()
    assert changed[5, 5]
    assert changed[20, 26]


@pytest.mark.parametrize("position", [(32, 0), (0, 32), (-1, 0), (0, -33), (999, 999)])
@pytest.mark.parametrize("layers", ["conv2", ["conv1", "conv2"]], ids=["one layer", "two layers"])
def test_a_neuron_outside_is_refused_before_anything_is_written(position, layers, tmp_path):
    with pytest.raises(InputError, match="32 x 32"):
        cv.atlas(small(), layers, tmp_path / "job", position=position, **NEURON)
    assert not (tmp_path / "job").exists()


def test_a_neuron_of_vectors_is_the_unit(texturenet):
    options = {"steps": 2, "size": 32, "progress": False}
    unit = cv.maximize(texturenet, "classifier", [2], objective="neuron", **options)
    assert same(unit, cv.maximize(texturenet, "classifier", [2], **options))
    with pytest.raises(InputError, match="`position`"):
        cv.maximize(texturenet, "classifier", [2], objective="neuron", position=(0, 0), **options)


def test_a_logit_is_the_networks_output_before_softmax(texturenet):
    found = cv.maximize(texturenet, "logits", [2, 5], objective="logit", **OPTIONS)
    source = texturenet.cnnvis_source
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (source.mean, source.std))
    with torch.no_grad():
        expected = texturenet((found.images - mean) / std)[[0, 1], [2, 5]]
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert (found.scores > found.start_scores).all()
    assert found.status == ["ok", "ok"]


def test_a_logit_of_maps_is_refused(texturenet, tmp_path):
    for layers in ("conv5", ["logits", "conv5"]):
        with pytest.raises(InputError, match="logit"):
            cv.atlas(texturenet, layers, tmp_path / "job", objective="logit", **OPTIONS)
    assert not (tmp_path / "job").exists()
