"""Sheets of activation maps: what they show, and how they are saved."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from support.activations import PLAIN, seeded
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.images.sheets import value_sheet

# Sheets


def test_a_sheet_shows_every_map(maps):
    sheet = maps.sheet("conv1")
    assert sheet.size == value_sheet(maps["conv1"].numpy(), range(24), "each").size
    shown, value = np.asarray(sheet), maps["conv1"][0].numpy()
    lowest, highest = np.unravel_index([value.argmin(), value.argmax()], value.shape)
    # 64 pixels become 128, every one a square of two.
    for (row, column), shade in zip(
        ((lowest[0], highest[0]), (lowest[1], highest[1])), (0, 255), strict=True
    ):
        assert (shown[4 + 2 * row : 6 + 2 * row, 4 + 2 * column : 6 + 2 * column] == shade).all()
    assert np.ptp(np.asarray(maps.sheet("conv1", "common")).astype(int), axis=2).max() > 50


def test_a_channel_is_followed_and_narrow_layers_say_so(maps, monkeypatch):
    said, labels = [], []
    monkeypatch.setattr(
        "cnnvis_fast.inspection.activation_maps._note",
        lambda size, text: said.append(text) or Image.new("L", size),
    )
    monkeypatch.setattr(
        "cnnvis_fast.inspection.activation_maps.contact_sheet",
        lambda tiles, names, alarms: labels.extend(names),
    )
    maps.follow(50)
    assert said == ["has 24 channels", "has 48 channels"]
    assert labels == list(maps)
    with pytest.raises(cv.InputError, match="the widest has 96"):
        maps.follow(96)
    for wrong in (-1, True, "17"):
        with pytest.raises(cv.InputError, match="no layer has"):
            maps.follow(wrong)


def test_a_followed_picture_keeps_its_proportions():
    model = seeded(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    sheet = cv.activation_maps(model, torch.rand(3, 10, 40), **PLAIN).follow(1)
    assert sheet.size[0] == 2 * (224 + 4) + 4
    assert 56 < sheet.size[1] < 100


def test_constant_and_broken_maps_say_so(monkeypatch):
    labels: list[str] = []
    monkeypatch.setattr(
        "cnnvis_fast.images.sheets.contact_sheet", lambda tiles, texts, alarms: labels.extend(texts)
    )
    values = torch.rand(4, 5, 5)
    values[1], values[2, 0, 0] = 0.0, float("inf")
    cv.ActivationMaps({"a": values}, torch.rand(3, 9, 9), {}).sheet("a")
    assert labels == ["0", "1 constant", "2 nonfinite", "3"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1, 1), (3, 1, 40), (700, 13, 13), (2, 300, 200)], ids=str)
@pytest.mark.parametrize("scale", ["each", "common"])
def test_sheets_of_any_shape_stay_within_their_limits(shape, scale):
    values = torch.rand(shape)
    sheet = cv.ActivationMaps({"a": values}, torch.rand(3, 9, 9), {}).sheet("a", scale)
    assert 30 < min(sheet.size) <= max(sheet.size) <= 4600


def test_what_is_not_there_is_told(maps):
    for ask in (lambda: maps["conv9"], lambda: maps.sheet("features.1")):
        with pytest.raises(cv.InputError, match=r"there are maps of features\.0"):
            ask()
    assert maps.get("conv9") is None
    with pytest.raises(cv.InputError, match="each, common"):
        maps.sheet("conv1", "all")


# Files


def test_save_writes_a_sheet_a_layer(maps, tmp_path):
    paths = maps.save(tmp_path / "new" / "maps", follow=17, progress=False)
    assert [path.name for path in paths] == ["_follow-17.png", *(f"{name}.png" for name in maps)]
    assert {path.name for path in paths[0].parent.iterdir()} == {*(p.name for p in paths), "_input.png"}
    with Image.open(paths[1]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(maps.sheet("conv1")))
    with Image.open(paths[0].with_name("_input.png")) as image:
        assert np.array_equal(np.asarray(image), (maps.picture * 255).round().byte().permute(1, 2, 0).numpy())


def test_a_failing_save_leaves_whole_files_only(maps, tmp_path, monkeypatch):
    written = []

    def fail(descriptor):
        written.append(descriptor)
        if len(written) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        maps.save(tmp_path, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"_input.png", "features.0.png"}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()


def test_nothing_is_written_where_an_argument_is_wrong(maps, tmp_path):
    for options, words in (({"follow": 96}, "no layer"), ({"scale": "all"}, "each, common")):
        with pytest.raises(cv.InputError, match=words):
            maps.save(tmp_path / "maps", progress=False, **options)
    with pytest.raises(cv.InputError, match="`out` is empty"):
        maps.save("")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(cv.InputError, match="cannot write"):
        maps.save(tmp_path / "file", progress=False)
