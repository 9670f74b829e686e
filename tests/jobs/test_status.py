"""Pictures that start without a gradient, or meet broken weights, have the right status."""

import copy
import csv
import json

import pytest
import torch
from PIL import Image
from support.jobs import OPTIONS, PLAIN, convolution, small
from torch import nn

import cnnvis_fast as cv

pytestmark = pytest.mark.usefixtures("same_random_networks")


def sleeper(bias=-1.0, inplace=False):
    """Filter 0 is off where pictures start and can be reached, 1 is constant, 2 is awake."""
    weight = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 0.3]]
    return nn.Sequential(convolution(weight, [bias, 0.5, 0.1]), nn.ReLU(inplace=inplace))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("preset", ["natural", "strong"])
def test_a_dead_start_is_redirected_and_succeeds(preset, inplace):
    found = cv.maximize(sleeper(inplace=inplace), "1", preset=preset, **PLAIN)
    assert found.status == ["redirected", "dead", "ok"]
    assert found.start_scores[0] == 0
    assert found.scores[0] > 0.1


def test_a_dead_layer_below_the_target_is_redirected():
    network = nn.Sequential(*sleeper(), convolution([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.0, 0.0]))
    found = cv.maximize(network, "2", **PLAIN)
    assert found.status == ["redirected", "dead"]
    assert found.scores[0] > found.start_scores[0]


def test_a_functional_relu_is_redirected_too():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = sleeper()[0]

        def forward(self, x):
            return torch.relu(self.conv(x))

    found = cv.maximize(Functional(), "logits", **PLAIN)
    assert found.status == ["redirected", "dead", "ok"]
    assert found.scores[0] > 0.1


def test_a_redirected_picture_is_the_same_alone_and_disturbs_nobody():
    together = cv.maximize(sleeper(), "1", **PLAIN)
    for channel in range(3):
        alone = cv.maximize(sleeper(), "1", [channel], **PLAIN)
        assert torch.equal(alone.pixels[0], together.pixels[channel]), channel
        assert alone.status == [together.status[channel]]
    wide_awake = sleeper()
    with torch.no_grad():
        wide_awake[0].bias[2] = 3.0  # on for every picture
    kept = cv.maximize(wide_awake, "1", **PLAIN)
    assert kept.status[0] == "redirected"
    awake = cv.maximize(nn.Sequential(wide_awake[0], nn.Identity()), "1", [2], **PLAIN)
    assert torch.equal(awake.pixels[0], kept.pixels[2])


@pytest.mark.parametrize(
    "options", [{}, {"preset": "strong"}, {"parameters": "pixel"}, {"weight_decay": 0.5}]
)
def test_a_constant_unit_is_dead_and_never_ok(options, tmp_path):
    network = copy.deepcopy(small())
    with torch.no_grad():
        network[2].weight[1] = 0
        network[2].bias[1] = 7
    made = cv.atlas(network, "conv2", tmp_path, **PLAIN, **options)
    assert [row["status"] for row in made.scores] == ["ok", "dead", "ok", "ok", "ok"]
    with (tmp_path / "scores.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)][1] == "dead"


def test_no_step_that_helps_is_stalled():
    # So small a rate that no pixel changes: the score cannot beat the start's.
    found = cv.maximize(small(), "conv2", **PLAIN, rate=1e-9)
    assert found.status == ["stalled"] * 5
    assert torch.equal(found.scores, found.start_scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:.*cannot be cut")
def test_a_network_of_broken_weights_is_nonfinite(value, tmp_path):
    network = small()
    with torch.no_grad():
        network[0].weight[0, 0, 1, 1] = value
    found = cv.maximize(network, "conv2", **PLAIN)
    assert found.status == ["nonfinite"] * 5
    assert found.images.isfinite().all()
    found.save(tmp_path)
    assert [row.split(",")[3] for row in (tmp_path / "scores.csv").read_text().split()[1:]] == [
        "nonfinite"
    ] * 5


def test_one_broken_filter_does_not_break_the_others(texturenet):
    network = copy.deepcopy(texturenet)
    network.features[14].weight[7] = float("nan")
    found = cv.maximize(network, "conv5", [6, 7, 8], **OPTIONS)
    assert found.status == ["ok", "nonfinite", "ok"]
    sound = cv.maximize(texturenet, "conv5", [6, 8], **OPTIONS)
    assert torch.equal(found.pixels[[0, 2]], sound.pixels)


@pytest.mark.filterwarnings("ignore:.*cannot be cut")
def test_provenance_is_json_even_where_a_score_is_not_a_number(tmp_path):
    network = small()
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    cv.maximize(network, "conv2", [0], **PLAIN).save(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    with Image.open(tmp_path / "2" / "0000.png") as tile:
        told = json.loads(tile.text["cnnvis_fast"], parse_constant=refuse)
    assert told["status"] == "nonfinite"
