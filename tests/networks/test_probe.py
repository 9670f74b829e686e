"""Channels and size are read off the network; what reads no pictures is refused in a sentence."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.networks.preprocessing import describe
from cnnvis_fast.networks.probe import input_channels, input_size, runs

FEW = {"steps": 2, "progress": False}


def fixed(channels=3, size=32):
    """Reads pictures of one size alone, as its last layer has so many weights."""
    side = size // 2
    return nn.Sequential(
        *(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(4 * side * side, 5)),
    ).eval()


def perceptron(channels, size):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size * size, 6), nn.ReLU(), nn.Linear(6, 4)
    ).eval()


@pytest.mark.parametrize("size", [32, 64, 28, 299])
def test_the_size_is_one_at_which_the_network_runs_and_is_told(size):
    with pytest.warns(UserWarning, match=rf"Sequential does not run at 224 px: taking {size} px.*size="):
        assert input_size(fixed(size=size), 3) == size


@pytest.mark.filterwarnings("error")
def test_a_network_that_runs_at_224_gets_224_without_a_word():
    assert input_size(nn.Conv2d(3, 2, 3), 3) == 224


@pytest.mark.filterwarnings("error")
def test_a_network_that_runs_at_no_usual_size_is_left_to_say_so_itself():
    assert input_size(fixed(size=100), 3) == 224
    with pytest.raises(InputError, match=r"does not run on a 3 x 224 x 224 picture.*size"):
        cv.layers(fixed(size=100))
    assert cv.layers(fixed(size=100), size=100)[-1].channels == 5


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 32), (2, 32)])
def test_a_perceptron_tells_channels_and_size_by_its_first_layer(channels, size):
    network = perceptron(channels, size)
    assert input_channels(network) == channels
    with pytest.warns(UserWarning, match=f"taking {size} px"):
        assert input_size(network, channels) == size


def test_the_channels_of_what_does_not_run_are_three():
    assert input_channels(nn.Linear(4, 2)) == 3
    assert not runs(nn.Linear(4, 2), 3, 32)


def test_listing_and_pictures_find_the_size():
    network = fixed(channels=1)
    with pytest.warns(UserWarning, match="taking 32 px"):
        assert (cv.layers(network)[0].height, cv.layers(network)[-1].layout) == (32, "vector")
    with pytest.warns(UserWarning, match="taking 32 px"):
        pictures = cv.maximize(network, "logits", [0, 3], mean=[0.5], std=[0.25], **FEW)
    assert pictures.images.shape == (2, 1, 32, 32)
    assert pictures.status == ["ok", "ok"]


@pytest.mark.filterwarnings("error")
def test_a_size_that_is_given_is_taken_without_trying_others():
    assert describe(fixed(), (0.5,) * 3, (0.25,) * 3, size=48).size == 48


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_have_the_channels_that_the_network_reads(channels, tmp_path):
    network = nn.Sequential(nn.Conv2d(channels, 4, 5), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()
    with pytest.warns(UserWarning, match=r"assuming values in \[0, 1\]"):
        pictures = cv.maximize(network, "2", size=32, **FEW)
    assert pictures.images.shape == (3, channels, 32, 32)
    assert pictures.images.isfinite().all()
    pictures.save(tmp_path)
    assert len(list((tmp_path / "2").glob("0*.png"))) >= 3


class Clip(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.stem(x).mean(2))


@pytest.mark.parametrize(
    "network, reads",
    [(Clip(), "Conv3d.*video"), (nn.Sequential(nn.Conv1d(1, 4, 9), nn.ReLU()), "Conv1d.*sequences")],
    ids=["video", "sound"],
)
@pytest.mark.parametrize("call", [cv.layers, lambda network: cv.maximize(network, "0")], ids=["list", "make"])
def test_what_reads_no_pictures_is_refused_with_what_is_supported(network, reads, call):
    with pytest.raises(InputError, match=rf"starts with a {reads}.*\[N, channels, height, width\]"):
        call(network)


@pytest.mark.filterwarnings("error")
def test_a_convolution_over_channels_behind_one_over_pictures_is_no_sound():
    class Attending(nn.Module):
        """Channel attention as in ECA-Net."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.across = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x):
            x = self.conv(x)
            gate = self.across(x.mean((2, 3))[:, None])[:, 0].sigmoid()
            return x * gate[:, :, None, None]

    assert [row.name for row in cv.layers(Attending().eval(), size=16)] == ["conv", "logits"]


def test_a_network_in_train_mode_is_told_of_its_copy_in_eval_mode():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    with pytest.warns(UserWarning, match="Sequential is in train mode.*copy in eval mode"):
        describe(network, (0.5,) * 3, (0.25,) * 3, 64)
    assert network.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        describe(network.eval(), (0.5,) * 3, (0.25,) * 3, 64)
        describe(nn.Sequential(nn.Conv2d(3, 4, 3)).train(), (0.5,) * 3, (0.25,) * 3, 64)


def test_what_runs_leaves_the_network_in_its_mode():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = network[1].running_mean.clone()
    assert runs(network, 3, 16)
    assert not runs(network, 5, 16)
    assert network.training
    assert torch.equal(network[1].running_mean, before)


@pytest.mark.parametrize(
    "channels, given, told", [(1, 3, "3 values.*1 channel:"), (3, 1, "1 value,.*3 channels:")]
)
@pytest.mark.parametrize("call", [cv.maximize, cv.atlas], ids=["maximize", "atlas"])
def test_preprocessing_of_other_channels_is_refused_as_such(
    channels, given, told, call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"`mean` has {told}"):
        call(fixed(channels), "0", mean=(0.5,) * given, std=(0.25,) * given, size=32, **FEW)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
def test_a_network_that_makes_its_channels_of_others_keeps_its_preprocessing():
    class Gray(nn.Module):
        """Reads one channel, of which its convolution gets three."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x.expand(-1, 3, -1, -1))

    assert describe(Gray().eval(), [0.5], [0.25], 32).mean == (0.5,)


NO_SIZE = "no size given: taking 224 px; pass size= the size of your training pictures"
KNOWN = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.mark.parametrize("call", ["maximize", "atlas", "top_patches"])
def test_a_size_that_nobody_knows_is_told_once(call, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 2, 8, 8)).eval()
    to_image(np.zeros((3, 40, 40), np.uint8)).save(tmp_path / "picture.png")
    run = {
        "maximize": lambda **more: cv.maximize(network, "0", **FEW, **KNOWN, **more),
        "atlas": lambda **more: cv.atlas(network, "0", tmp_path / f"a{len(more)}", **FEW, **KNOWN, **more),
        "top_patches": lambda **more: cv.top_patches(
            network, tmp_path, out=tmp_path / f"p{len(more)}", progress=False, **KNOWN, **more
        ),
    }[call]
    with pytest.warns(UserWarning) as caught:
        run()
    assert [str(one.message) for one in caught] == [NO_SIZE]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(size=32)


@pytest.mark.filterwarnings("error")
def test_a_network_that_fits_one_size_alone_needs_none_told():
    assert describe(fixed(size=224), **KNOWN).size == 224
