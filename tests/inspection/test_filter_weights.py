"""Filter grids: the numbers are the weights, the pictures show them, and what has no filters is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.images.sheets import value_tiles

assets = os.environ.get("CNNVIS_FAST_TEST_ASSETS")


def network(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for module in modules:
        for parameter in module.parameters():
            if not isinstance(parameter, nn.UninitializedParameter):
                nn.init.normal_(parameter)
    return nn.Sequential(*modules)


CONVOLUTIONS = {
    "rgb 7x7": nn.Conv2d(3, 8, 7),
    "3x3": nn.Conv2d(6, 5, 3),
    "1x1": nn.Conv2d(6, 5, 1),
    "1x7": nn.Conv2d(6, 5, (1, 7)),
    "grouped": nn.Conv2d(6, 4, 3, groups=2),
    "depthwise": nn.Conv2d(6, 12, 3, groups=6),
    "depthwise rgb": nn.Conv2d(3, 3, 5, groups=3),
    "dilated": nn.Conv2d(4, 2, 3, dilation=2),
    "gray": nn.Conv2d(1, 9, 5),
    "bfloat16": nn.Conv2d(6, 5, 3).bfloat16(),
}


# Values


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_array_holds_the_weights(name):
    model = network(CONVOLUTIONS[name])
    weight = CONVOLUTIONS[name].weight.detach().float().numpy()
    grid = cv.filter_weights(model, "conv1")
    assert (grid.layer, grid.filters) == ("0", list(range(len(weight))))
    assert grid.array.dtype == np.float32
    if weight.shape[1] == 3:
        assert (grid.view, grid.scale) == ("rgb", "each")
        assert np.array_equal(grid.array, weight)
    else:
        assert (grid.view, grid.scale) == ("mean", "common")
        assert np.allclose(grid.array, weight.mean(1), rtol=0, atol=1e-6)
    for channel in range(weight.shape[1]):
        found = cv.filter_weights(model, "0", channel=channel)
        assert found.view == "channel"
        assert np.array_equal(found.array, weight[:, channel])
    first = cv.filter_weights(model, "0", view="channel", scale="each")
    assert np.array_equal(first.array, weight[:, 0])
    for sheet in (grid.sheet(), first.sheet()):
        assert max(sheet.size) <= 4096


def test_filters_are_picked_in_the_order_asked_for():
    model = network(nn.Conv2d(4, 9, 3))
    grid = cv.filter_weights(model, "0", "7,2-3", channel=1)
    assert grid.filters == [7, 2, 3]
    assert np.array_equal(grid.array, model[0].weight[[7, 2, 3], 1].detach().numpy())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_lists_its_outputs(groups):
    model = network(nn.ConvTranspose2d(4, 6, 3, groups=groups))
    for channel in range(4 // groups):
        grid = cv.filter_weights(model, "0", channel=channel)
        for number in range(6):
            # The picture that a lone pixel of that input, in the group of that output, is turned into.
            group = number // (6 // groups)
            pixel = torch.zeros(1, 4, 1, 1)
            pixel[0, group * (4 // groups) + channel] = 1
            answer = nn.functional.conv_transpose2d(pixel, model[0].weight, groups=groups)[0, number]
            assert np.array_equal(grid.array[number], answer.detach().numpy())


def test_the_network_is_left_as_it_is():
    model = network(nn.Conv2d(3, 4, 3)).train()
    before = model[0].weight.clone()
    cv.filter_weights(model, "0").array[:] = 7
    assert torch.equal(model[0].weight, before)
    assert model.training
    model.half()
    before = model[0].weight.clone()
    cv.filter_weights(model, "0").array[:] = 7
    assert torch.equal(model[0].weight, before)


# Pictures


def test_each_filter_is_scaled_on_its_own_from_black_to_white():
    weight = CONVOLUTIONS["3x3"].weight[:, 0].detach().numpy()
    for tile, value in zip(value_tiles(weight, "each"), weight, strict=True):
        expected = np.round(255 * (value - value.min()) / (value.max() - value.min()))
        assert tile.mode == "L"
        assert np.abs(np.asarray(tile) - expected).max() <= 1
        assert (np.asarray(tile).min(), np.asarray(tile).max()) == (0, 255)


def test_colors_are_scaled_together():
    weight = CONVOLUTIONS["rgb 7x7"].weight.detach().numpy()
    for tile, value in zip(value_tiles(weight, "each"), weight, strict=True):
        expected = 255 * (value - value.min()) / (value.max() - value.min())
        assert np.abs(np.asarray(tile).transpose(2, 0, 1) - expected).max() <= 1
    gray = np.asarray(value_tiles(np.zeros((1, 3, 2, 2)), "common")[0])
    assert (gray == 128).all()


def test_one_scale_tells_signs_and_sizes():
    values = np.array([[[-4.0, 4.0]], [[-2.0, 0.0]], [[1.0, 0.0]]])
    (blue, red), (half, zero), (pale, nothing) = (
        np.asarray(tile)[0].astype(int) for tile in value_tiles(values, "common")
    )
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert (zero == nothing).all()
    assert zero.min() > 240
    assert blue[0] < half[0] < zero[0]
    assert red[1] < pale[1] < zero[1]


def test_a_few_outliers_do_not_leave_the_rest_pale():
    values = np.random.default_rng(0).normal(size=(10, 20, 20))
    values[3, 4, 5] = 1000
    for scale in ("each", "common"):
        spread = np.asarray(value_tiles(values, scale)[3]).astype(int).std()
        assert spread > 30


def test_a_map_of_lone_specks_still_shows_them():
    values = np.zeros((1, 50, 50))
    values[0, 7, 9] = 1
    shown = np.asarray(value_tiles(values, "each")[0])
    assert (shown[7, 9], int(shown.sum())) == (255, 255)


def test_the_sheet_shows_every_filter_pixel_by_pixel():
    model = network(nn.Conv2d(3, 4, 3))
    grid = cv.filter_weights(model, "0")
    sheet = np.asarray(grid.sheet())
    tiles = value_tiles(grid.array, "each")
    side = 96
    for number, tile in enumerate(tiles):
        left, top = 4 + number % 2 * (side + 4), 4 + number // 2 * (side + 12 + 8)
        shown = sheet[top : top + side, left : left + side]
        assert np.array_equal(shown, np.asarray(tile).repeat(32, 0).repeat(32, 1))


def test_filters_without_contrast_and_broken_ones_say_so(monkeypatch):
    model = network(nn.Conv2d(2, 4, 3))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[2, 0, 0, 0] = float("nan")
    labels: list[str] = []
    monkeypatch.setattr(
        "cnnvis_fast.images.sheets.contact_sheet", lambda tiles, texts, alarms: labels.extend(texts)
    )
    cv.filter_weights(model, "0", channel=0, scale="each").sheet()
    assert labels == ["0", "1 constant", "2 nonfinite", "3"]


# Files


def test_save_writes_a_png_with_its_folders(tmp_path):
    grid = cv.filter_weights(network(nn.Conv2d(3, 4, 3)), "0")
    path = tmp_path / "new" / "grid.png"
    grid.save(path)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(grid.sheet()))
    assert [*path.parent.iterdir()] == [path]


def test_what_was_there_survives_a_failing_save(tmp_path, monkeypatch):
    grid = cv.filter_weights(network(nn.Conv2d(3, 4, 3)), "0")
    path = tmp_path / "grid.png"
    path.write_bytes(b"before")

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(cv.InputError, match="No space left"):
        grid.save(path)
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]


def test_names_that_are_no_pngs_are_refused(tmp_path):
    grid = cv.filter_weights(network(nn.Conv2d(3, 4, 3)), "0")
    (tmp_path / "folder.png").mkdir()
    for name in ("", "grid.jpg", "folder.png"):
        with pytest.raises(cv.InputError, match=r"ends in \.png"):
            grid.save(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(cv.InputError, match="cannot write"):
        grid.save(tmp_path / "file" / "grid.png")


# What is wrong


def test_layers_without_two_dimensional_filters_are_refused():
    model = network(
        nn.Conv2d(2, 2, 3),
        nn.Conv1d(2, 3, 3),
        nn.Conv3d(2, 3, 3),
        nn.ReLU(),
        nn.Linear(2, 3),
        nn.LazyConv2d(4, 3),
    )
    for layer, words in {
        "1": "1-d convolution",
        "2": "3-d convolution",
        "3": "kind ReLU",
        "4": "kind Linear",
        "5": "no weights yet",
        "logits": "kind output",
        "conv7": "unknown layer",
    }.items():
        with pytest.raises(cv.InputError, match=words):
            cv.filter_weights(model, layer)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"view": "colour"}, "auto, rgb, mean, channel"),
        ({"scale": "all"}, "each, common"),
        ({"view": "rgb"}, "needs 3 input channels"),
        ({"channel": 6}, "no input channel 6"),
        ({"channel": -1}, "no input channel -1"),
        ({"channel": True}, "no input channel"),
        ({"channel": 1, "view": "mean"}, "for the view"),
        ({"filters": "5"}, "numbered 0 to 4"),
        ({"weights": "x.pth"}, "given by name"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(cv.InputError, match=words):
        cv.filter_weights(network(nn.Conv2d(6, 5, 3)), "0", **options)


# The command


def test_the_command_writes_the_grid_and_prints_its_path(tmp_path, capsys):
    path = tmp_path / "grid.png"
    options = ["--filters", "0-3", "--channel", "1", "--scale", "each", "--out", str(path)]
    assert main(["filters", "texturenet", "conv2", *options]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")
    expected = cv.filter_weights("texturenet", "conv2", range(4), channel=1, scale="each").sheet()
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["texturenet", "conv9", "--out", "a.png"], "did you mean"),
        (["texturenet", "features.2", "--out", "a.png"], "kind ReLU"),
        (["texturenet", "conv1", "--out", "a.jpg"], "ends in .png"),
        (["texturenet", "conv1", "--out", "a.png", "--view", "blue"], "auto, rgb, mean, channel"),
        (["nonet", "conv1", "--out", "a.png"], "unknown model"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_sentence_and_no_file(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["filters", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert not list(tmp_path.iterdir())


def test_the_program_answers(tmp_path):
    command = [sys.executable, "-m", "cnnvis_fast", "filters", "texturenet", "conv1", "--out"]
    done = subprocess.run([*command, str(tmp_path / "grid.png")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "grid.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(not assets, reason="CNNVIS_FAST_TEST_ASSETS does not point at the test assets")
def test_first_filters_of_a_real_network_are_smooth():
    grid = cv.filter_weights(
        "squeezenet1_0", "conv1", weights=Path(assets or "") / "weights" / "squeezenet1_0.safetensors"
    )
    assert (grid.array.shape, grid.view) == ((96, 3, 7, 7), "rgb")
    # Neighbouring weights of trained first filters are alike; those of noise are not.
    steps = np.diff(grid.array, axis=3).std() / grid.array.std()
    shuffled = np.random.default_rng(0).permuted(grid.array, axis=3)
    assert steps < 0.9 * np.diff(shuffled, axis=3).std() / grid.array.std()
