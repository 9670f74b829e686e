"""Activation maps are what the real network computes, to the bit."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.activations import PLAIN, seeded
from torch import Tensor, nn
from torchvision.ops import Permute

import cnnvis_fast as cv

assets = os.environ.get("CNNVIS_FAST_TEST_ASSETS")


def plainly(model: nn.Module, picture: Tensor, mean, std) -> dict[str, Tensor]:
    """Every first output by an ordinary forward pass of a copy, taken before anything overwrites it."""
    found: dict[str, Tensor] = {}
    twin = copy.deepcopy(model).eval()

    def keep(name):
        def hook(_module, _inputs, output):
            found.setdefault(name, output.clone())  # nothing is returned: that would become the output

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(keep(name))
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (mean, std))
    with torch.no_grad():
        twin((picture[None] - mean) / std)
    return found


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# What the network computes


@pytest.mark.parametrize("name", ["texturenet", "squeezenet1_0"])
def test_maps_are_what_a_plain_forward_pass_gives(name, photo):
    model = cv.load_model(name, None if name != "texturenet" else "DEFAULT")
    maps = cv.activation_maps(model, photo, size=96)
    assert maps.picture.shape == (3, 96, 96)
    source = model.cnnvis_source
    expected = plainly(model, maps.picture, source.mean, source.std)
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert list(maps) == convolutions
    for layer, found in maps.items():
        assert (found.dtype, found.is_contiguous()) == (torch.float32, True)
        assert torch.equal(found, expected[layer][0])
    assert torch.equal(maps["conv2"], maps[convolutions[1]])
    assert hooks(model) == 0


def test_one_pass_serves_every_layer(photo):
    model, passes = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    maps = cv.activation_maps(model, photo, ["2", "conv1", "1", "0"], size=16, **PLAIN)
    assert len(passes) == 1
    assert list(maps) == ["0", "1", "2"]


def test_an_in_place_relu_does_not_reach_the_maps():
    model = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    maps = cv.activation_maps(model, torch.rand(3, 9, 9), ["0", "1"], **PLAIN)
    assert float(maps["0"].min()) < 0
    assert torch.equal(maps["1"], maps["0"].relu())


def test_a_module_that_runs_twice_is_meant_where_it_runs_first():
    shared = nn.Conv2d(3, 3, 3)
    model = seeded(shared, nn.ReLU(), shared)
    picture = torch.rand(3, 9, 9)
    maps = cv.activation_maps(model, picture, **PLAIN)
    assert maps["0"].shape == (3, 7, 7)
    assert torch.equal(maps["0"], plainly(model, picture, **PLAIN)["0"][0])


def test_the_networks_output_may_be_maps():
    model = seeded(nn.Conv2d(3, 4, 3), nn.Sigmoid())
    maps = cv.activation_maps(model, torch.rand(3, 9, 9), "logits", **PLAIN)
    assert list(maps) == ["logits"]
    assert 0 < float(maps["logits"].min()) < float(maps["logits"].max()) < 1


def test_maps_with_channels_last_are_shown_by_channel():
    network = nn.Sequential(nn.Conv2d(3, 6, 4, 4), Permute([0, 2, 3, 1]), nn.LayerNorm(6)).eval()
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = cv.activation_maps(network, picture, ["0", "1", "2"], size=32, mean=[0.5] * 3, std=[0.25] * 3)
    assert maps["2"].shape == maps["1"].shape == (6, 8, 8)
    assert torch.equal(maps["1"], maps["0"])


def test_modes_weights_and_hooks_are_left_as_they_were():
    model = seeded(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3))
    model.train()
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    mine = model[0].register_forward_hook(lambda _m, _i, output: 2 * output)
    first = cv.activation_maps(model, torch.rand(3, 9, 9), **PLAIN)
    assert [module.training for module in model] == [True, True, False, True]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert hooks(model) == 1
    mine.remove()
    assert torch.allclose(first["0"], 2 * cv.activation_maps(model, first.picture, **PLAIN)["0"])


@pytest.mark.parametrize("error", [RuntimeError("broken\nin two lines"), KeyboardInterrupt()], ids=type)
def test_hooks_are_gone_whatever_happens(error):
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    model = seeded(nn.Conv2d(3, 4, 3), Failing())
    model.train()
    with pytest.raises((cv.InputError, KeyboardInterrupt)):
        cv.activation_maps(model, torch.rand(3, 9, 9), **PLAIN)
    assert hooks(model) == 0
    assert model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_network_runs_in_its_own_dtype(dtype):
    model = seeded(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).to(dtype)
    picture = torch.rand(3, 9, 9)
    maps = cv.activation_maps(model, picture, **PLAIN)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in PLAIN.values())
    with torch.no_grad():
        expected = model(((picture - mean) / std).to(dtype))
    assert torch.equal(maps["1"], expected[0].float())


def test_other_pictures_than_photos():
    gray = seeded(nn.Conv2d(1, 4, 3))
    options = {"mean": (0.5,), "std": (0.5,), "size": 16}
    assert cv.activation_maps(gray, np.zeros((20, 30), np.uint8), **options).picture.shape == (1, 16, 16)
    with pytest.warns(UserWarning, match="no preprocessing"):
        maps = cv.activation_maps(seeded(nn.Conv2d(3, 4, 3)), Image.new("L", (30, 40)), size=16)
    assert maps["conv1"].shape == (4, 14, 14)
    maps = cv.activation_maps("texturenet", cv.noise_image(64), "conv5")
    assert maps["features.14"].shape == (96, 16, 16)
    assert torch.equal(maps.picture, cv.noise_image(64))


def test_squeezing_shows_the_whole_photo(photo):
    maps = cv.activation_maps("texturenet", photo, "conv1", resize="squeeze", size=64)
    expected = np.asarray(Image.open(photo).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal((maps.picture * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    "layers, words",
    [
        ("classifier", r"yields no maps: .*got \[1, "),
        ("logits", "yields no maps"),
        ("spare", "got none"),
        ("conv9", "did you mean"),
        (["conv1", 3], "must be a name"),
    ],
    ids=str,
)
def test_layers_without_maps_are_refused(layers, words, photo):
    model = cv.load_model("texturenet")
    model.spare = nn.Conv2d(3, 3, 3)
    with pytest.raises(cv.InputError, match=words):
        cv.activation_maps(model, photo, layers)
    assert "spare" not in cv.activation_maps(model, photo)


def test_networks_that_do_not_fit_are_refused(photo):
    with pytest.raises(cv.InputError, match="no convolution"):
        cv.activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), photo, **PLAIN)
    with pytest.raises(cv.InputError, match="does not run on a 3 x 8 x 8 input"):
        cv.activation_maps(seeded(nn.Conv2d(3, 4, 9)), photo, size=8, **PLAIN)
    with pytest.raises(cv.InputError, match="reads 1 channel"):
        cv.activation_maps(seeded(nn.Conv2d(1, 4, 3)), torch.rand(3, 9, 9), mean=(0,), std=(1,))
    with pytest.raises(cv.InputError, match="no photo at"):
        cv.activation_maps("texturenet", "missing.jpg")


# Convolutions alone


def test_chained_convolutions_leave_out_everything_between():
    model = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU())
    picture = torch.rand(3, 12, 12)
    maps = cv.chained_convolutions(model, picture, progress=False, **PLAIN)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in PLAIN.values())
    with torch.no_grad():
        first = model[0]((picture[None] - mean) / std)
        assert torch.equal(maps["conv1"], first[0])
        assert torch.equal(maps["conv2"], model[3](first)[0])
    assert list(maps) == ["0", "3"]
    assert maps.follow(3).size[0] > 200


def test_convolutions_that_do_not_fit_are_refused(photo):
    model = cv.load_model("squeezenet1_0", None)
    with pytest.raises(cv.InputError, match=r"expand3x3 cannot follow features\.3\.expand1x1: it reads 16"):
        cv.chained_convolutions(model, photo, progress=False)
    path = ["conv1", "features.3.squeeze", "features.3.expand3x3"]
    assert len(cv.chained_convolutions(model, photo, path, size=64, progress=False)) == 3
    with pytest.raises(cv.InputError, match="reads 96 channels and gets 3"):
        cv.chained_convolutions(model, photo, path[1:], progress=False)
    with pytest.raises(cv.InputError, match=r"and features\.1 is not one"):
        cv.chained_convolutions(model, photo, ["conv1", "features.1"], progress=False)
    with pytest.raises(cv.InputError, match="1 does not run on a 4 x 4 x 4 input"):
        small = seeded(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 5))
        cv.chained_convolutions(small, photo, size=8, progress=False, **PLAIN)


# The command


@pytest.mark.slow
@pytest.mark.skipif(not assets, reason="CNNVIS_FAST_TEST_ASSETS does not point at the test assets")
def test_maps_of_a_real_photo_lead_to_its_class():
    folder = Path(assets or "")
    model = cv.load_model("squeezenet1_0", folder / "weights" / "squeezenet1_0.safetensors")
    maps = cv.activation_maps(model, folder / "images" / "labrador.jpg")
    # SqueezeNet's logits are the means of its last maps after a ReLU; 208 is the Labrador retriever.
    assert int(maps["classifier.1"].relu().mean((1, 2)).argmax()) == 208
    assert [len(values) for values in maps.values()][:3] == [96, 16, 64]
