"""texturenet knows the truth about its classes, so it can tell whether the pictures show them."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor

import cnnvis_fast as cv
from cnnvis_fast.quality import Scorer
from cnnvis_fast.texturenet import CLASSES, GRATINGS
from cnnvis_fast.texturenet.train import held_out_accuracy, normalize

LUMINANCE = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@pytest.fixture(scope="module")
def network():
    return cv.load_model("texturenet")


@pytest.fixture(scope="module")
def second(request):
    return cv.load_model("texturenet", request.path.parent / "assets" / "texturenet_seed1.safetensors")


@pytest.fixture(scope="module")
def pictures(network):
    return cv.maximize(network, "logits", progress=False)


def probabilities(network: torch.nn.Module, pictures: Tensor) -> dict[str, float]:
    with torch.no_grad():
        found = network(normalize(pictures)).softmax(1).diagonal()
    return dict(zip(CLASSES, found.tolist(), strict=True))


def spectral_peak(picture: Tensor) -> tuple[float, float]:
    """Angle in [0, 180) degrees and frequency in cycles/px of the peak of luminance power times |k|^2."""
    luminance = (picture * LUMINANCE).sum(0)
    power = torch.fft.fft2(luminance - luminance.mean()).abs().square()
    axis = torch.fft.fftfreq(luminance.shape[0])
    weighted = power * (axis[:, None].square() + axis.square())
    row, column = divmod(int(weighted.argmax()), len(axis))
    down, right = float(axis[row]), float(axis[column])
    return math.degrees(math.atan2(down, right)) % 180, math.hypot(down, right)


def test_both_networks_classify_held_out_textures(network, second):
    assert held_out_accuracy(network) > 0.95
    assert held_out_accuracy(second) > 0.95


def test_every_class_picture_is_of_its_class(network, pictures):
    found = probabilities(network, pictures.images)
    assert {name: value for name, value in found.items() if value < 0.9} == {}


def test_a_network_from_another_seed_agrees(second, pictures):
    found = probabilities(second, pictures.images)
    assert {name: value for name, value in found.items() if value < 0.5} == {}


@pytest.mark.parametrize("name", GRATINGS)
def test_a_grating_has_the_orientation_and_the_frequency_of_its_class(name, pictures):
    angle, frequency = spectral_peak(pictures.images[CLASSES.index(name)])
    off = abs((angle - GRATINGS[name].angle + 90) % 180 - 90)
    assert off <= 15
    assert 1 / 1.5 <= frequency / GRATINGS[name].frequency <= 1.5


def test_the_oracle_itself_measures_drawn_gratings_right():
    from cnnvis_fast.texturenet.textures import draw

    for name, grating in GRATINGS.items():
        angle, frequency = spectral_peak(draw(name, 1, 96, torch.Generator().manual_seed(5))[0])
        assert abs((angle - grating.angle + 90) % 180 - 90) <= 10
        assert 0.85 <= frequency / grating.frequency <= 1.15


@pytest.fixture(scope="module")
def layer(network, tmp_path_factory):
    out = tmp_path_factory.mktemp("atlas")
    return cv.atlas(network, out=out, progress=False)


def test_a_whole_layer_is_ok_and_beats_noise(network, layer):
    rows = layer.scores
    assert len(rows) >= 64
    noise = torch.randint(0, 256, (64, 3, 96, 96), generator=torch.Generator().manual_seed(0)).byte()
    plan = cv.pictures.make_plan(network, layer.layers[0], cv.config.configure())
    scorer = Scorer(plan)
    with torch.no_grad():
        x = (noise.float() / 255 - plan.mean.view(-1, 1, 1)) / plan.std.view(-1, 1, 1)
        best = plan.trunk.tail(plan.trunk.module(x)).mean((2, 3)).amax(0)
    one = scorer.scores(noise[:1], [3])
    assert one.item() == pytest.approx(
        float(plan.trunk.tail(plan.trunk.module(x[:1]))[0, 3].mean()), abs=1e-4
    )
    good = [row for row in rows if row["status"] == "ok" and row["robust_score"] > best[row["filter"]]]
    assert len(good) >= 0.9 * len(rows)


def test_no_two_tiles_of_a_layer_are_equal(layer):
    folder = layer.store.folder(layer.layers[0])
    tiles = {Image.open(path).tobytes() for path in folder.glob("[0-9]*.png")}
    assert len(tiles) == len(layer.scores)
