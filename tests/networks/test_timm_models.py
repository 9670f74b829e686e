"""Networks of timm: by name, with timm's own preprocessing."""

import builtins

import pytest
import timm
import torch
from safetensors.torch import save_file

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks import timm_models
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.preprocessing import describe, network_input

SMALL = "timm/resnet10t"


def refusal(name, weights="none"):
    with pytest.raises(InputError) as caught:
        load_model(name, weights)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "tf_efficientnet_b0", "convnext_atto"])
def test_preprocessing_is_timms_own(name):
    network = load_model(f"timm/{name}", None)
    expected = timm.data.resolve_data_config(model=network)
    source = network.cnnvis_source
    assert (source.name, source.weights) == (f"timm/{name}", "none")
    assert (source.mean, source.std) == (tuple(expected["mean"]), tuple(expected["std"]))
    assert source.size == expected["input_size"][1]
    assert source.bicubic == (expected["interpolation"] == "bicubic")
    photo = torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0))
    transform = timm.data.create_transform(**expected)
    from torchvision.transforms.functional import to_pil_image

    picture = to_pil_image(photo)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    found = (network_input(picture, source)[0] - mean) / std
    assert torch.allclose(found, transform(picture), atol=1e-4)


def test_random_weights_are_the_same_at_every_call():
    torch.manual_seed(5)
    first = load_model(SMALL, "none")
    assert weights_digest(load_model(SMALL, None)) == weights_digest(first)
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_a_file_gives_its_weights_and_the_default_preprocessing(tmp_path):
    network = timm.create_model("resnet10t")
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    loaded = load_model(SMALL, tmp_path / "mine.safetensors")
    assert weights_digest(loaded) == weights_digest(network)
    assert loaded.cnnvis_source.weights == "mine.safetensors"
    assert loaded.cnnvis_source.resize == load_model(SMALL, None).cnnvis_source.resize
    assert "does not fit timm/resnet18" in refusal("timm/resnet18", tmp_path / "mine.safetensors")


@pytest.mark.parametrize(
    "name, weights, asked, label",
    [
        ("timm/resnet18", "DEFAULT", "resnet18", "a1_in1k"),
        ("timm/resnet18", "a3_in1k", "resnet18.a3_in1k", "a3_in1k"),
        ("timm/resnet18.a2_in1k", "default", "resnet18.a2_in1k", "a2_in1k"),
    ],
)
def test_the_weights_asked_for_are_timms(name, weights, asked, label, monkeypatch):
    calls, create = [], timm.create_model

    def without_fetching(name, pretrained=False):
        calls.append((name, pretrained))
        return create(name)

    monkeypatch.setattr(timm, "create_model", without_fetching)
    assert load_model(name, weights).cnnvis_source.weights == label
    assert calls == [(asked, True)]


@pytest.mark.parametrize(
    "name, meant", [("timm/resnet_18", "resnet18"), ("timm/vit_tiny", "vit_tiny_patch16_224")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, meant):
    assert "did you mean" in (text := refusal(name))
    assert meant in text


def test_unknown_weights_are_answered_with_the_valid_ones():
    text = refusal("timm/resnet18", "a9_in1k")
    assert "unknown weights 'a9_in1k' of timm/resnet18: expected default, none, " in text
    assert "a1_in1k" in text
    assert "a9_in1k" in refusal("timm/resnet18.a9_in1k")


def test_weights_that_nobody_trained_are_not_promised():
    name = next(name for name in timm.list_models() if not timm.list_pretrained(f"{name}.*"))
    assert f"no trained weights for timm/{name}" in refusal(f"timm/{name}", "default")


def test_weights_that_cannot_be_fetched_say_so(monkeypatch):
    def create(name, pretrained=False):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(timm, "create_model", create)
    assert "could not be downloaded completely (no route to host)" in refusal("timm/resnet18", "default")


def test_without_timm_one_sentence_says_what_to_install(monkeypatch):
    importing = builtins.__import__

    def refuse(name, *rest):
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "timm/resnet18 needs the package timm" in (text := refusal("timm/resnet18"))
    assert "pip install" in text


def test_timm_is_imported_only_where_it_is_used():
    assert not hasattr(timm_models, "timm")


def test_the_command_line_lists_them(capsys):
    assert main(["layers", SMALL, "--size", "64"]) == 0
    assert "layer1.0.conv1" in capsys.readouterr().out
    assert main(["layers", "timm/resnet_10t"]) == 2
    assert "resnet10t" in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
def test_a_network_that_timm_made_tells_its_preprocessing_itself():
    network = timm.create_model("vit_tiny_patch16_224").eval()
    source = describe(network)
    assert (source.mean, source.size, source.weights) == ((0.5,) * 3, 224, "given")


def test_one_that_was_made_for_other_pictures_does_not():
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, in_chans=1).eval()
    with pytest.warns(UserWarning) as caught:
        source = describe(network)
    assert (source.mean, source.std, source.size) == ((0.0,), (1.0,), 64)
    assert len(caught) == 2


def test_tokens_of_a_timm_transformer_are_listed():
    rows = {row.name: row for row in cv.layers("timm/vit_tiny_patch16_224", weights="none")}
    assert (rows["blocks.3"].channels, rows["blocks.3"].height) == (192, 197)
    assert rows["blocks.3"].layout == "tokens"
    assert (rows["patch_embed"].receptive_field, rows["blocks.3"].receptive_field) == (16, -1)
