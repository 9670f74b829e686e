"""The class of the original repository does what it did there, epoch by epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast import compat
from cnnvis_fast.compat import ActivationMaximizationVis, reproduce_original

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The class writes below the present folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vgg16() -> nn.Sequential:
    torch.manual_seed(0)
    features = torchvision.models.vgg16(weights=None).features
    assert isinstance(features, nn.Sequential)
    return features


def small(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU(inplace=True), nn.MaxPool2d(4), *layers)


def plain_loop(model: nn.Sequential, epochs: int, layer: int, channel: int) -> tuple[list[float], Tensor]:
    """Adam of torch on the mean of one channel, from NumPy's next noise: losses and the final picture."""
    noise = np.random.randint(125, 190, (224, 224, 3), dtype=np.uint8)
    image = torch.FloatTensor(((noise / 255 - MEAN) / STD).transpose(2, 0, 1))[None].requires_grad_()
    adam = torch.optim.Adam([image], lr=0.1, weight_decay=1e-6)
    losses = []
    for _ in range(1, epochs):
        adam.zero_grad()
        loss = -model[: layer + 1](image)[0, channel].mean()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    return losses, image.detach()[0]


def assert_same(
    model: nn.Sequential, epochs: int, layer: int, channel: int, same_picture: bool = True
) -> None:
    np.random.seed(1)
    expected, image = plain_loop(model, epochs, layer, channel)
    np.random.seed(1)
    found = ActivationMaximizationVis(model, epochs, layer, channel)
    found.vis_cnn_layer()
    assert len(found.losses) == epochs - 1
    np.testing.assert_allclose(found.losses, expected, rtol=1e-3)
    assert expected[-1] < expected[0] - 0.1 * abs(expected[0])  # it went somewhere
    assert found.layer_img is not None
    assert found.layer_img.shape == (224, 224, 3)
    if same_picture:
        picture = image.numpy().transpose(1, 2, 0) * STD + MEAN
        # A pixel whose gradient is nearly zero may step to either side.
        assert np.mean(np.abs(found.layer_img - picture) > 0.02) < 0.01


@pytest.mark.parametrize("layer", [0, 1, 2], ids=["convolution", "relu", "pool"])
def test_losses_and_picture_are_those_of_a_plain_loop(layer: int) -> None:
    assert_same(small(), 26, layer, 4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [10, 11, 16], ids=["convolution", "relu", "pool"])
def test_losses_on_vgg16_are_those_of_a_plain_loop(layer: int) -> None:
    # Not the picture: in a deep network the plain loop itself, run with channels last, ends with half of the
    # pixels elsewhere and losses within 2e-4.
    assert_same(vgg16(), 51, layer, 17, same_picture=False)


def test_every_fifth_picture_is_saved_under_the_name_that_it_had(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ActivationMaximizationVis(small(), 13, 1, 2).vis_cnn_layer()
    names = sorted(path.name for path in (folder / "activ_max_imgs").iterdir())
    assert names == ["am_vis_l1_f2_iter11.jpg", "am_vis_l1_f2_iter6.jpg"]
    with Image.open(folder / "activ_max_imgs" / names[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (224, 224))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("Epoch 2/13 --> Loss ")


def test_the_network_is_only_set_to_evaluation() -> None:
    model = small(nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ActivationMaximizationVis(model, 3, 2, 0).vis_cnn_layer()
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_one_epoch_is_no_step(folder: Path) -> None:
    vis = ActivationMaximizationVis(small(), 1, 0, 0)
    vis.vis_cnn_layer()
    assert vis.layer_img is None
    assert not list((folder / "activ_max_imgs").iterdir())


def test_a_dead_filter_stays_dead_as_it_did() -> None:
    model = small()
    nn.init.constant_(model[0].bias, -1e3)
    assert_noise = ActivationMaximizationVis(model, 4, 1, 0)
    assert_noise.vis_cnn_layer()
    assert assert_noise.losses == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("model", "layer", "channel", "sentence"),
    [
        (nn.Conv2d(3, 4, 3), 0, 0, "a sequence of layers"),
        (small(), 3, 0, "no layer 3: the network has 3"),
        (small(), -1, 0, "no layer -1"),
        (small(), 0, 6, "no filter 6 in layer 0: it has 6"),
    ],
    ids=["no sequence", "no such layer", "counted from the end", "no such filter"],
)
def test_what_does_not_fit_is_refused(model: nn.Module, layer: int, channel: int, sentence: str) -> None:
    with pytest.raises(cv.InputError, match=sentence):
        ActivationMaximizationVis(model, 51, layer, channel)


def test_the_table_is_made_in_one_run_a_layer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "TABLE", {0: {1: 3, 5: 5}, 2: {0: 4}})

    network = nn.Module()
    network.features = vgg16()
    sheet = reproduce_original("pictures", network, device="cpu", progress=False)
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {
        "am_vis_l0_f1_iter3.jpg",
        "am_vis_l0_f5_iter5.jpg",
        "am_vis_l2_f0_iter4.jpg",
        "sheet.png",
    }
    assert sheet.width > 2 * 224


def test_the_table_is_refused_for_another_network(folder: Path) -> None:
    with pytest.raises(cv.InputError, match="is of VGG16"):
        reproduce_original("pictures", "texturenet")
    assert not list(folder.iterdir())


def test_the_preset_is_for_any_target() -> None:
    pictures = cv.maximize("texturenet", "conv2", [0, 3], preset="original", steps=4, size=32, progress=False)
    assert pictures.job["config"]["parameters"] == "normalized"
    assert (pictures.history[:, -1] > pictures.history[:, 0]).all()
    with pytest.raises(cv.InputError, match='needs `transforms` "none"'):
        cv.maximize("texturenet", "conv2", [0], preset="original", transforms="jitter")
