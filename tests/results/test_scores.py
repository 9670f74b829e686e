import math

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

import cnnvis_fast as cv
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.results.measures import high_frequency_share, saturated_share
from cnnvis_fast.results.scores import Scorer, robust_warps


def wave(frequency: float, size: int = 64) -> torch.Tensor:
    x = torch.arange(size).expand(3, size, size)
    return (127.5 + 100 * torch.sin(2 * math.pi * frequency * x)).round().byte()[None]


def test_power_above_a_quarter_cycle_is_high():
    pictures = torch.cat([wave(0.3125), wave(0.125)])
    high, low = high_frequency_share(pictures).tolist()
    assert high > 0.99
    assert low < 0.01


def test_a_gray_picture_has_no_noise_instead_of_nan():
    assert high_frequency_share(torch.full((1, 3, 16, 16), 127, dtype=torch.uint8)).item() == 0


def test_saturated_values_are_counted_at_both_ends():
    picture = torch.full((1, 3, 10, 10), 128, dtype=torch.uint8)
    picture[0, 0, :2] = 0
    picture[0, 1, :1] = 255
    picture[0, 2, :1] = 250  # 0.980: just above the limit
    picture[0, 2, 1:2] = 249
    assert saturated_share(picture).item() == pytest.approx(40 / 300)


@pytest.fixture(scope="module")
def plan():
    return make_plan(cv.load_model("texturenet"), "conv5", configure(size=48))


@pytest.fixture(scope="module")
def pictures():
    return torch.randint(0, 256, (3, 3, 48, 48), generator=torch.Generator().manual_seed(1)).byte()


def test_the_score_is_the_plain_networks_channel_mean(plan, pictures):
    network = cv.load_model("texturenet")
    with torch.no_grad():
        x = (pictures.float() / 255 - plan.mean.view(3, 1, 1)) / plan.std.view(3, 1, 1)
        expected = network.features[:15](x)[range(3), [5, 60, 7]].mean((1, 2))
    assert torch.allclose(Scorer(plan).scores(pictures, [5, 60, 7]), expected, rtol=1e-4, atol=1e-5)


def test_the_robust_score_is_the_mean_over_the_sixteen_transforms(plan, pictures):
    network, scores = cv.load_model("texturenet"), []
    for matrix in robust_warps():
        grid = affine_grid(matrix[None], [1, 3, 48, 48], align_corners=False)
        x = grid_sample(pictures[:1].float() / 255, grid, padding_mode="reflection", align_corners=False)
        with torch.no_grad():
            x = (x - plan.mean.view(3, 1, 1)) / plan.std.view(3, 1, 1)
            scores.append(float(network.features[:15](x)[0, 5].mean()))
    found = Scorer(plan).robust_scores(pictures[:1], [5]).item()
    assert found == pytest.approx(sum(scores) / 16, rel=1e-4, abs=1e-5)


def test_scores_do_not_depend_on_what_is_scored_beside(plan, pictures):
    scorer = Scorer(plan)
    together = scorer.robust_scores(pictures, [5, 60, 7])
    assert torch.equal(together[1:2], scorer.robust_scores(pictures[1:2], [60]))
