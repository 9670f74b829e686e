"""What `maximize` returns: images, scores, history and sheet, with every parameterization."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.jobs import FILTERS, LAST, OPTIONS, activation

import cnnvis_fast as cv
from cnnvis_fast.results.scores import Scorer

pytestmark = pytest.mark.usefixtures("same_random_networks")


# Pictures


def test_images_are_what_an_8_bit_file_holds(pictures):
    assert pictures.images.shape == (3, 3, 64, 64)
    assert pictures.images.dtype == torch.float32
    assert pictures.images.min() >= 0
    assert pictures.images.max() <= 1
    steps = pictures.images * 255
    assert torch.equal(steps.round() / 255, pictures.images)
    assert pictures.images.flatten(1).std(1).min() > 0.01


def test_pictures_are_a_sequence_of_images(pictures):
    assert len(pictures) == 3
    assert torch.equal(torch.stack(list(pictures)), pictures.images)
    assert torch.equal(pictures[-1], pictures.images[2])
    assert pictures[1:].shape == (2, 3, 64, 64)


def test_pictures_know_their_target(pictures):
    assert pictures.layer == LAST
    assert pictures.filters == FILTERS
    assert pictures.status == ["ok"] * 3
    assert pictures.job["model"] == "texturenet"
    assert pictures.job["config"]["steps"] == 6
    assert pictures.job["config"]["size"] == 64
    assert len(pictures.job["weights_sha256"]) == 64


def test_scores_are_the_mean_of_the_plain_networks_channel(texturenet, pictures):
    maps = activation(texturenet, LAST, pictures.images)
    expected = maps.mean((2, 3))[range(3), FILTERS]
    torch.testing.assert_close(pictures.scores, expected, rtol=1e-4, atol=1e-5)


def test_scores_beat_the_start(pictures):
    assert pictures.scores.dtype == pictures.start_scores.dtype == torch.float32
    assert (pictures.scores > pictures.start_scores).all()


def test_the_history_has_every_step(pictures):
    assert pictures.history.shape == (3, 6)
    assert pictures.history.dtype == torch.float32
    assert (pictures.history[:, -1] > pictures.history[:, 0]).all()


def test_robust_scores_are_computed_when_first_read_and_once(texturenet, monkeypatch):
    calls, compute = [], Scorer.robust_scores

    def counted(*arguments, **named):
        calls.append(1)
        return compute(*arguments, **named)

    monkeypatch.setattr(Scorer, "robust_scores", counted)
    pictures = cv.maximize(texturenet, "conv1", [0, 1], steps=2, size=32, progress=False)
    assert calls == []
    first = pictures.robust_scores
    assert pictures.robust_scores is first
    assert len(calls) == 1
    assert first.shape == (2,)
    assert first.isfinite().all()
    assert not torch.equal(first, pictures.scores)


def test_the_sheet_holds_every_picture(pictures):
    sheet = pictures.sheet()
    assert isinstance(sheet, Image.Image)
    shown = np.asarray(sheet)
    tile = (pictures.images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    # A tile that is not larger than its place is shown pixel by pixel.
    places = np.lib.stride_tricks.sliding_window_view(shown, tile.shape)[:, :, 0]
    assert (places == tile).all((-1, -2, -3)).sum() == 1


# Parameters, transforms, second moments: each climbs, and each in its own way


# One number for all coefficients asks for a flatter spectrum and smaller steps than one for each.
SLOWLY = {"decay": 1.0, "amplitude": 0.25, "cutoff": 0.0, "rate": 0.05}
WAYS = {
    "default": {},
    "image": {"second_moment": "image", **SLOWLY},
    "band": {"second_moment": "band"},
    "momentum": {"second_moment": "none", **SLOWLY},
    "pixel": {"parameters": "pixel", "second_moment": "image"},
    "pixel coefficient": {"parameters": "pixel", "second_moment": "coefficient"},
    "jitter": {"transforms": "jitter"},
    "still": {"transforms": "none"},
    "strong": {"preset": "strong"},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def climbed(texturenet):
    return {way: cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS, **WAYS[way]) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_raises_the_score(way, climbed):
    found = climbed[way]
    assert found.status == ["ok"] * 3
    assert (found.scores > found.start_scores).all()
    assert (found.scores - found.start_scores).mean() > 0.05


def test_every_way_makes_its_own_picture(climbed):
    different = [way for way in WAYS if way not in ("bfloat16", "float32")]
    every = {climbed[way].pixels.numpy().tobytes() for way in different}
    assert len(every) == len(different)


def test_without_transforms_the_history_is_the_score(climbed):
    # Both look at the start, the history with a network of lower precision and before rounding to 8 bits.
    found = climbed["still"]
    torch.testing.assert_close(found.history[:, 0], found.start_scores, rtol=0.05, atol=0.05)


def test_weight_decay_keeps_parameters_smaller(texturenet, climbed):
    held = cv.maximize(texturenet, "conv5", FILTERS, weight_decay=100.0, **OPTIONS)
    spread = (held.images - 0.5).abs().mean((1, 2, 3))
    assert (spread < (climbed["default"].images - 0.5).abs().mean((1, 2, 3))).all()
