"""Each failure that other tools ignore silently is provoked here, detected and named."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.jobs.preprocessing_check import preprocessing_note
from cnnvis_fast.networks.preprocessing import Source, describe
from cnnvis_fast.results.diagnostics import HINTS, problems, summed_up
from cnnvis_fast.results.measures import border, checkerboard, high_frequency_share, saturated_share

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "size": 48, "progress": False}


def seeded(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    return nn.Sequential(*modules).eval()


def found(pictures: cv.Pictures) -> dict[str, list[str]]:
    return pictures.report().problems


# 1. A dead ReLU gives one picture of a batch no gradient.


def test_a_unit_that_is_never_on_is_dead_and_its_neighbor_is_fine():
    network = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU())
    with torch.no_grad():
        network[2].bias.copy_(torch.tensor([-1e6, 50.0]))
    pictures = cv.maximize(network, "3", [0, 1], steps=8, **PLAIN)
    assert pictures.status == ["dead", "ok"]
    assert found(pictures)["dead"] == ["3:0"]
    assert "no gradient reaches the picture" in str(pictures.report())


# 2. An in-place ReLU overwrites what a hook reads.


def test_the_score_before_an_in_place_relu_may_be_below_zero():
    network = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        network[0].bias -= 50
    pictures = cv.maximize(network, "0", [0], steps=2, **PLAIN)
    assert float(pictures.scores[0]) < -40


# 3. Wrong preprocessing.


def test_wrong_preprocessing_shows_at_the_first_batch_norm():
    network = cv.load_model("texturenet")
    source = describe(network)
    assert preprocessing_note(network, source, 64) is None
    mean, std = source.mean, source.std
    wrong = {
        "values to 255": ((0.0,) * 3, (1 / 255,) * 3),
        "of another range": (tuple(100 * value for value in mean), std),
        "not divided": (mean, (4.0,) * 3),
    }
    for name, (other_mean, other_std) in wrong.items():
        note = preprocessing_note(network, describe(network, other_mean, other_std), 64)
        assert note is not None, name
        assert "preprocessing looks wrong" in note
        assert "\n" not in note


def test_networks_that_no_statistic_tells_of_are_not_suspected():
    for network in (seeded(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), seeded(nn.Conv2d(3, 4, 3))):
        network.append(nn.Conv2d(4, 2, 3))
        if isinstance(network[1], nn.BatchNorm2d):
            network[1].reset_running_stats()
        source = Source("n", "given", (0.0,) * 3, (1e-3,) * 3, 48)
        assert preprocessing_note(network, source, 48) is None


def test_wrong_preprocessing_is_warned_of_and_kept_with_the_job():
    options = {"steps": 1, "size": 48, "progress": False, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    with pytest.warns(UserWarning, match="preprocessing looks wrong"):
        pictures = cv.maximize("texturenet", "conv2", [0], **options)
    assert "preprocessing looks wrong" in str(pictures.report())
    assert not pictures.report().ok


# 4. BatchNorm or Dropout in train mode let the pictures of a batch mix.


def test_a_network_in_train_mode_runs_as_in_eval_mode_and_stays_as_it_is():
    network = seeded(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 3))
    expected = cv.maximize(network, "3", [0, 1], steps=3, **PLAIN)
    network.train()
    pictures = cv.maximize(network, "3", [0, 1], steps=3, **PLAIN)
    assert torch.equal(pictures.pixels, expected.pixels)
    assert network.training
    assert network[1].training


def test_statistics_of_the_batch_are_told():
    network = seeded(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 3))
    with pytest.warns(UserWarning, match="each batch's own statistics"):
        cv.maximize(network, "2", [0], steps=1, **PLAIN)


# 5. The gradient never reaches the picture.


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * 1.0


def test_a_picture_that_no_gradient_reaches_is_dead_not_a_success():
    network = seeded(nn.Conv2d(3, 4, 3), Detached(), nn.Conv2d(4, 2, 3))
    pictures = cv.maximize(network, "2", [0, 1], steps=3, **PLAIN)
    assert pictures.status == ["dead", "dead"]
    assert len(found(pictures)["dead"]) == 2


# 6. The wrong thing is maximized.


def test_a_picture_that_plain_noise_beats_is_told():
    pictures = cv.maximize("texturenet", "conv1", range(8), steps=1, rate=1e-6, size=48, progress=False)
    records = pictures.records()
    beaten = [row for row in records if row["score"] <= row["noise_score"]]
    assert beaten
    for row in beaten:
        assert set(row["problems"].split("; ")) & {"below noise", "stalled"}


def test_noise_is_scored_as_the_network_itself_scores_it():
    network = cv.load_model("texturenet")
    pictures = cv.maximize(network, "conv1", [2], steps=60, size=48, progress=False)
    assert float(pictures.noise_scores[0]) < float(pictures.scores[0])
    assert "below noise" not in found(pictures)
    again = cv.maximize(network, "conv1", [5, 2], steps=1, size=48, progress=False)
    assert torch.equal(again.noise_scores[1:], pictures.noise_scores)


def test_a_picture_that_does_not_beat_its_start_is_stalled():
    constant = seeded(nn.Conv2d(3, 4, 3), nn.Hardtanh(-1e-9, 1e-9), nn.Conv2d(4, 2, 3))
    pictures = cv.maximize(constant, "2", [0], steps=2, **PLAIN)
    assert pictures.status[0] in ("stalled", "dead")


# 7. NaN and overflow.


class Overflow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x * 1e4)


def test_numbers_that_overflow_are_named_and_the_picture_stays_a_picture():
    network = seeded(nn.Conv2d(3, 4, 3), Overflow(), nn.Conv2d(4, 2, 3))
    pictures = cv.maximize(network, "2", [0], steps=3, **PLAIN)
    assert pictures.status == ["nonfinite"]
    assert "nonfinite" in found(pictures)
    assert pictures.images.isfinite().all()


# 8. Saturation, checkerboards, borders.


def waves(size: int = 96) -> Tensor:
    """A smooth picture, uint8 [1, 3, size, size]."""
    axis = torch.linspace(0, 6, size)
    picture = 0.5 + 0.2 * torch.sin(axis[:, None] * 1.3 + axis) + 0.1 * torch.cos(axis * 3.1)
    return picture.mul(255).byte().expand(1, 3, size, size).contiguous()


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_checkerboard_at_the_stride_is_measured(period: int):
    smooth = waves()
    place = torch.arange(96)
    board = ((place[:, None] // (period // 2) + place // (period // 2)) % 2) * 2 - 1
    spoilt = (smooth.int() + 25 * board).clamp(0, 255).byte()
    assert float(checkerboard(smooth, period)) < 0.01
    assert float(checkerboard(spoilt, period)) > 0.1
    assert float(checkerboard(spoilt, 1)) == 0


def test_natural_pictures_and_noise_have_no_checkerboard():
    from cnnvis_fast.images.statistics import literature, natural_pictures

    generator = torch.Generator().manual_seed(0)
    phases = 2 * math.pi * torch.rand(8, 3, 96, 49, generator=generator)
    natural = natural_pictures(literature(3), 96, phases).mul(255).byte()
    noise = torch.randint(0, 256, (8, 3, 96, 96), generator=generator).byte()
    assert float(checkerboard(natural, 8).max()) < 0.02
    assert float(checkerboard(noise, 8).max()) < 0.05
    assert float(border(natural).max()) < 1.7
    assert 0.8 < float(border(noise).min()) <= float(border(noise).max()) < 1.2


def test_a_border_stronger_than_the_middle_is_measured():
    framed = waves()
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, framed.shape, generator=generator).byte()
    frame[:, :, 4:-4, 4:-4] = framed[:, :, 4:-4, 4:-4]
    assert float(border(framed)) < 1.7
    assert float(border(frame)) > 5


def test_each_measure_names_its_problem():
    fine = {"status": "ok", "score": 2.0, "noise_score": 1.0, "saturated": 0.1, "high_frequency": 0.1}
    fine |= {"checkerboard": 0.0, "border": 1.0}
    assert problems(fine) == []
    spoilt = {
        "saturated": {"saturated": 0.5},
        "noisy": {"high_frequency": 0.5},
        "checkerboard": {"checkerboard": 0.2},
        "border": {"border": 4.0},
        "below noise": {"noise_score": 3.0},
        "dead": {"status": "dead", "noise_score": 3.0},
    }
    for name, change in spoilt.items():
        assert problems({**fine, **change}) == [name]
        assert name in HINTS


def test_a_start_that_is_driven_too_hard_is_saturated_and_a_noisy_recipe_noisy():
    options = {"steps": 24, "size": 64, "progress": False}
    hard = cv.maximize("texturenet", "conv5", [0], rate=3.0, saturation=0.0, **options)
    assert float(saturated_share(hard.pixels)[0]) > 0.3
    assert "saturated" in found(hard)
    noisy = cv.maximize(
        "texturenet",
        "conv1",
        [3],
        parameters="pixel",
        transforms="none",
        noise=2.0,
        blur=0.0,
        color="none",
        **options,
    )
    assert float(high_frequency_share(noisy.pixels)[0]) > 0.4
    assert "noisy" in found(noisy)


# 9. Errors are not swallowed, and what was found is told.


def test_an_error_of_the_networks_is_told_not_passed_over():
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("this layer is broken")

    with pytest.raises(cv.InputError, match="this layer is broken"):
        cv.maximize(nn.Sequential(nn.Conv2d(3, 4, 3), Failing(), nn.Conv2d(4, 2, 3)), "2", **PLAIN)


def test_a_report_sums_up_and_names_a_few():
    rows = [{"layer": "a", "filter": n, "status": "dead" if n < 7 else "ok"} for n in range(10)]
    report = summed_up(rows)
    assert report.problems == {"dead": [f"a:{n}" for n in range(7)]}
    assert str(report).startswith("7 of 10 dead (a:0, a:1, a:2, a:3, a:4, ...): no gradient")
    assert summed_up(rows[7:]).ok
    assert str(summed_up(rows[7:])) == "3 pictures, nothing wrong found"


def test_a_clean_run_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = cv.maximize("texturenet", "conv5", [1, 2], steps=64, size=64, progress=False)
    assert pictures.report().ok, str(pictures.report())


def test_the_command_line_ends_with_what_is_wrong(tmp_path, capsys):
    arguments = ["maximize", "texturenet", "conv1", "--filters", "0-7", "--steps", "1", "--size", "48"]
    assert main([*arguments, "--set", "rate=1e-6", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().err
    assert "of 8 below noise" in shown or "of 8 stalled" in shown
    table = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    header, first = table[0].split(","), table[1].split(",")
    row = dict(zip(header, first, strict=True))
    for column in ("noise_score", "saturated", "high_frequency", "checkerboard", "border", "problems"):
        assert column in row
    assert float(row["checkerboard"]) >= 0
