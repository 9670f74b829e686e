"""Networks load from names with the weights that were asked for, or say in a sentence why not."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from support.loading import SMALL, assert_same_state, refusal

from cnnvis_fast.errors import InputError, nearest
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.networks.load import load_model, model_names

pytestmark = pytest.mark.usefixtures("nothing_is_fetched")


# Names


def test_names_are_those_of_classification_networks():
    names = model_names()
    assert {"texturenet", "vgg16", "squeezenet1_0", "googlenet", "inception_v3", "vit_b_16"} <= {*names}
    assert len(set(names)) == len(names)
    assert not {"fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "quantized_resnet18"} & {*names}


@pytest.mark.parametrize(
    "typed, meant", [("vgg_16", "vgg16"), ("resnet", "resnet18"), ("TextureNet", "texturenet")]
)
def test_an_unknown_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"unknown model '{typed}'; did you mean .*\b{meant}\b"):
        load_model(typed)


def test_a_name_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(InputError, match=r"unknown model 'zzzz'.*torchvision\.models"):
        load_model("zzzz")


# Weights by name


@pytest.mark.parametrize("choice", ["DEFAULT", "default"])
def test_texturenet_has_its_trained_weights_in_the_package(choice):
    network = load_model("texturenet", choice)
    assert network.cnnvis_source.name == "texturenet"
    assert network.cnnvis_source.weights == "default"
    assert weights_digest(network) != weights_digest(load_model("texturenet", None))


@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_no_weights_are_the_same_random_ones_at_every_call(name):
    torch.manual_seed(1)
    first = load_model(name, None)
    torch.manual_seed(2)
    assert_same_state(load_model(name, "none").state_dict(), first.state_dict())
    # Random, not constant: otherwise the network would show nothing.
    assert all(p.std() > 0 for n, p in first.named_parameters() if p.ndim == 4)


@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_loading_leaves_the_global_random_numbers_alone(name):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_model(name, None)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("choice", [None, "none", "None", "NONE"])
@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_none_may_be_written_as_one_likes(name, choice, asked_for):
    assert load_model(name, choice).cnnvis_source.weights == "none"


@pytest.mark.parametrize(
    "choice, selected",
    [
        ("DEFAULT", "IMAGENET1K_V2"),
        ("default", "IMAGENET1K_V2"),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("IMAGENET1K_V2", "IMAGENET1K_V2"),
    ],
)
def test_weights_are_torchvisions_by_their_name(choice, selected, asked_for):
    source = load_model("resnet50", choice).cnnvis_source
    assert asked_for == [("resnet50", torchvision.models.ResNet50_Weights[selected])]
    assert source.weights == selected


@pytest.mark.parametrize("name", ["texturenet", "vgg16"])
def test_unknown_weights_are_answered_with_the_known_ones(name, asked_for):
    text = refusal(name, "IMAGENET1K_V9")
    assert all(word in text for word in ("IMAGENET1K_V9", name, "default", "none"))
    assert ("IMAGENET1K_FEATURES" in text) == (name == "vgg16")
    assert asked_for == []


@pytest.mark.parametrize("choice", ["default", "none"])
def test_a_word_stays_a_word_where_a_folder_bears_it(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / choice).mkdir()
    assert load_model("texturenet", choice).cnnvis_source.weights == choice


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out"), ConnectionResetError()])
def test_a_failed_download_is_one_sentence_with_a_way_out(error, monkeypatch):
    def urlopen(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    text = refusal(SMALL, "DEFAULT")
    assert SMALL in text
    assert "path" in text


def test_a_damaged_file_in_torchs_cache_is_one_sentence():
    address = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    cached = Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[-1])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"PK\x03\x04 half a download")
    assert SMALL in refusal(SMALL, "DEFAULT")


# Identity


def test_no_name_is_suggested_twice():
    assert nearest("conv", ["conv4", "conv4", "conv3"]) == "; did you mean conv4 or conv3?"
