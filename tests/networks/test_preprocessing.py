"""A network's preprocessing is that of its weights, or the one given."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, describe
from cnnvis_fast.networks.probe import input_channels

pytestmark = pytest.mark.usefixtures("nothing_is_fetched")


def test_texturenet_brings_its_own_preprocessing():
    source = load_model("texturenet").cnnvis_source
    assert (source.mean, source.std, source.size) == ((0.5,) * 3, (0.25,) * 3, 96)


def test_preprocessing_is_that_of_the_weights_not_of_the_network(asked_for):
    usual = load_model("vgg16", "IMAGENET1K_V1").cnnvis_source
    features = load_model("vgg16", "IMAGENET1K_FEATURES").cnnvis_source
    assert (usual.mean, usual.std) == (IMAGENET_MEAN, IMAGENET_STD)
    # Trained in Caffe on 0 to 255: torchvision states 1/255 for the scale.
    assert features.mean == pytest.approx((0.48235, 0.45882, 0.40784), abs=1e-5)
    assert features.std == pytest.approx((1 / 255,) * 3)


@pytest.mark.parametrize(
    "name, size", [("inception_v3", 299), ("vgg16", 224), ("efficientnet_b1", 240), ("vit_b_16", 224)]
)
def test_the_size_is_the_one_that_the_weights_expect(name, size, asked_for):
    assert load_model(name, "DEFAULT").cnnvis_source.size == size
    assert load_model(name, None).cnnvis_source.size == size


def test_a_weights_file_takes_the_preprocessing_of_the_default_weights(asked_for, tmp_path):
    state = {"0.weight": torch.zeros(2, 3, 3, 3), "0.bias": torch.zeros(2)}
    save_file(state, tmp_path / "mine.safetensors")
    source = load_model("vit_b_16", tmp_path / "mine.safetensors").cnnvis_source
    expected = torchvision.models.ViT_B_16_Weights.DEFAULT.transforms()
    assert (source.mean, source.std) == (tuple(expected.mean), tuple(expected.std))
    assert source.weights == "mine.safetensors"


def test_googlenet_from_a_file_transforms_its_input_as_the_trained_one_does(tmp_path):
    # The published file holds the auxiliary classifiers, which only training uses.
    complete = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(complete.state_dict(), tmp_path / "googlenet.pth")
    network = load_model("googlenet", tmp_path / "googlenet.pth")
    assert network.transform_input is True
    complete.transform_input = True
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(x), complete.eval()(x))


class Bare(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3)

    def forward(self, x):
        return self.conv(x)


def test_a_bare_module_is_warned_of_imagenets_preprocessing():
    with pytest.warns(UserWarning, match="ImageNet") as caught:
        source = describe(Bare(3))
    assert [str(one.message).split(":")[0] for one in caught] == ["no preprocessing given", "no size given"]
    assert (source.name, source.weights) == ("Bare", "given")
    assert (source.mean, source.std, source.size) == (IMAGENET_MEAN, IMAGENET_STD, 224)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_warned_of_no_preprocessing(channels):
    with pytest.warns(UserWarning, match=r"\[0, 1\]"):
        source = describe(Bare(channels))
    assert (source.mean, source.std) == ((0.0,) * channels, (1.0,) * channels)


@pytest.mark.filterwarnings("error")
def test_given_preprocessing_is_taken_without_a_warning():
    source = describe(Bare(1), [0.25], [0.5], size=64)
    assert (source.mean, source.std) == ((0.25,), (0.5,))
    network = load_model("texturenet")
    assert describe(network) == network.cnnvis_source
    own = describe(network, (0.1, 0.2, 0.3), (1, 1, 1))
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert (own.name, own.weights, own.size) == ("texturenet", "default", 96)


@pytest.mark.parametrize(
    "mean, std",
    [
        ((0.5,) * 3, None),
        (None, (0.5,) * 3),
        ((), ()),
        ((0.5,) * 3, (0.5,) * 2),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5,) * 3, (0.5, -1.0, 0.5)),
        ((float("nan"),) * 3, (0.5,) * 3),
        ((0.5,) * 3, (0.5, float("inf"), 0.5)),
        (0.5, 0.5),
        ("abc", "abc"),
    ],
    ids=repr,
)
def test_preprocessing_that_does_not_fit_is_refused(mean, std):
    with pytest.raises(InputError, match="`mean` and `std`"):
        describe(Bare(3), mean, std)


def test_the_channels_are_those_of_the_first_convolution():
    assert input_channels(nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 1, groups=2), nn.Conv2d(8, 4, 1))) == 6
    assert input_channels(nn.Linear(4, 2)) == 3
