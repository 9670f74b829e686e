"""Saved pictures and atlases: the files they write, their options, and the arguments they refuse."""

import json

import numpy as np
import pytest
from PIL import Image
from support.jobs import FILTERS, LAST, OPTIONS, PLAIN, contents, small
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError

pytestmark = pytest.mark.usefixtures("same_random_networks")


# Pictures


def test_save_and_atlas_write_the_same_bytes(texturenet, pictures, tmp_path):
    pictures.save(tmp_path / "saved")
    cv.atlas(texturenet, "conv5", tmp_path / "atlas", filters=FILTERS, **OPTIONS)
    saved = contents(tmp_path / "saved")
    assert saved == contents(tmp_path / "atlas")
    assert {*saved} == {
        *(f"{LAST}/{n:04d}.png" for n in FILTERS),
        f"{LAST}/sheet.png",
        "job.json",
        "layers.json",
        "scores.csv",
    }
    pictures.save(tmp_path / "saved")
    assert contents(tmp_path / "saved") == saved


def test_a_tile_holds_the_picture(pictures, tmp_path):
    pictures.save(tmp_path)
    with Image.open(tmp_path / LAST / "0017.png") as tile:
        assert np.array_equal(np.asarray(tile).transpose(2, 0, 1), pictures.pixels[1].numpy())
        told = json.loads(tile.text["cnnvis_fast"])
    assert told["score"] == pytest.approx(float(pictures.scores[1]), abs=1e-6)
    assert told["robust_score"] == pytest.approx(float(pictures.robust_scores[1]), abs=1e-6)


def test_save_refuses_a_folder_of_another_job(texturenet, pictures, tmp_path):
    pictures.save(tmp_path)
    other = cv.maximize(texturenet, "conv5", [3], **{**OPTIONS, "seed": 1})
    with pytest.raises(InputError, match=r"its config\.seed is 0, yours is 1"):
        other.save(tmp_path)


def test_an_atlas_tells_what_it_did(texturenet, tmp_path):
    first = cv.atlas(
        texturenet, ["conv1", "logits", "features.0"], tmp_path, filters=[1, 2], steps=2, size=32
    )
    assert first.layers == ["features.0", "logits"]
    assert first.made == 4
    assert first.seconds > 0
    assert [(row["layer"], row["filter"]) for row in first.scores] == [
        *(("features.0", 1), ("features.0", 2), ("logits", 1), ("logits", 2))
    ]
    assert isinstance(first.sheet("logits"), Image.Image)
    again = cv.atlas(texturenet, "logits", tmp_path, filters=[2, 3], steps=2, size=32)
    assert again.made == 1
    assert [row["filter"] for row in again.scores] == [1, 2, 3]


def test_an_atlas_takes_the_last_convolution_by_itself(texturenet, tmp_path):
    made = cv.atlas(texturenet, out=tmp_path, filters=[0], steps=1, size=32)
    assert made.layers == [LAST]


def test_all_layers_are_all_convolutions_in_full(tmp_path):
    made = cv.atlas(small(), "all", tmp_path, **PLAIN)
    assert made.layers == ["0", "2"]
    assert [row["filter"] for row in made.scores] == [*range(6), *range(5)]


def test_filters_may_be_an_iterator_for_several_layers(tmp_path):
    made = cv.atlas(small(), "all", tmp_path, filters=(n for n in (4, 1)), **PLAIN)
    assert [row["filter"] for row in made.scores] == [1, 4, 1, 4]


def test_progress_speaks_only_when_asked(capfd):
    cv.maximize(small(), "conv1", [0], **PLAIN)
    assert capfd.readouterr() == ("", "")
    cv.maximize(small(), "conv1", [0], **{**PLAIN, "progress": True})
    assert "1/1" in capfd.readouterr().err


# Wrong arguments


@pytest.mark.parametrize(
    "arguments, options",
    [
        (("texturnet", "conv1"), {}),
        ((None, "conv1"), {}),
        (("texturenet", "conv9"), {}),
        (("texturenet", ["conv1", "conv9"]), {}),
        (("texturenet", ["conv1", "conv2"]), {"filters": [30]}),
        (("texturenet", 5), {}),
        (("texturenet", "conv1"), {"steps": 0}),
        (("texturenet", "conv1"), {"size": 4}),
        (("texturenet", "conv1"), {"step": 4}),
        (("texturenet", "conv1"), {"weights": "missing.pth"}),
        (("texturenet", "conv1"), {"mean": (0.5,) * 3}),
        (("texturenet", "conv1"), {"device": "tpu"}),
    ],
    ids=lambda value: str(value) if value else "",
)
def test_a_wrong_argument_is_refused_before_anything_is_written(arguments, options, tmp_path):
    with pytest.raises(InputError) as caught:
        cv.atlas(*arguments, tmp_path / "job", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "job").exists()


def test_a_network_without_convolutions_asks_for_a_layer(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(InputError, match="no convolution"):
        cv.atlas(network, None, tmp_path / "job", **PLAIN)
    assert not (tmp_path / "job").exists()
    assert cv.maximize(network, "1", **PLAIN).status == ["ok"] * 4


def test_a_layer_that_never_runs_is_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.spare = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(InputError, match="spare"):
        cv.maximize(Unused(), "spare", **PLAIN)


def test_a_size_below_what_the_network_takes_is_refused():
    network = nn.Sequential(*(nn.Conv2d(3, 3, 7) for _ in range(6)))
    with pytest.raises(InputError, match="does not run on a 3 x 32 x 32 picture"):
        cv.maximize(network, "conv6", **PLAIN)
