"""texturenet knows the truth about its classes, so it can tell whether the pictures show them."""

import dataclasses
import math

import pytest
import torch
from PIL import Image
from support.networks import TEXTURE_NETWORKS, texture_network
from torch import Tensor

import cnnvis_fast as cv
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.results.scores import Scorer
from cnnvis_fast.texturenet import CLASSES, GRATINGS
from cnnvis_fast.texturenet.train import (
    RECIPES,
    Cycle,
    _mixed,
    _stretched,
    calibration,
    held_out_accuracy,
    normalize,
    train,
)

LUMINANCE = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@pytest.fixture(scope="module")
def network():
    return cv.load_model("texturenet")


@pytest.fixture(scope="module")
def second(request):
    return cv.load_model("texturenet", request.path.parents[1] / "assets" / "texturenet_seed1.safetensors")


@pytest.fixture(scope="module")
def pictures(network):
    return cv.maximize(network, "logits", progress=False)


def spectral_peak(picture: Tensor) -> tuple[float, float]:
    """Angle in [0, 180) degrees and frequency in cycles/px of the peak of luminance power times |k|^2."""
    luminance = (picture * LUMINANCE).sum(0)
    power = torch.fft.fft2(luminance - luminance.mean()).abs().square()
    axis = torch.fft.fftfreq(luminance.shape[0])
    weighted = power * (axis[:, None].square() + axis.square())
    row, column = divmod(int(weighted.argmax()), len(axis))
    down, right = float(axis[row]), float(axis[column])
    return math.degrees(math.atan2(down, right)) % 180, math.hypot(down, right)


def shortcomings(network: torch.nn.Module, pictures: cv.Pictures) -> dict[str, str]:
    """What is wrong with the class pictures of a network: the names of the classes, and how they differ.

    A picture must be of its class with a probability of 0.9; a grating within 15 degrees of its class's
    orientation and within a factor of 1.5 of its frequency.
    """
    found = {}
    with torch.no_grad():
        likely = network(normalize(pictures.images)).softmax(1)
    for picture, channel, row in zip(pictures.images, pictures.filters, likely, strict=True):
        name, probability = CLASSES[channel], float(row[channel])
        if not probability >= 0.9:
            found[name] = (
                f"probability {probability:.2f}, {CLASSES[int(row.argmax())]} {float(row.max()):.2f}"
            )
        elif name in GRATINGS:
            angle, frequency = spectral_peak(picture)
            off = abs((angle - GRATINGS[name].angle + 90) % 180 - 90)
            ratio = frequency / GRATINGS[name].frequency
            if off > 15 or not 1 / 1.5 <= ratio <= 1.5:
                found[name] = f"{off:.0f} degrees off, {ratio:.2f} times its frequency"
    return found


def test_both_networks_classify_held_out_textures(network, second):
    assert held_out_accuracy(network) > 0.95
    assert held_out_accuracy(second) > 0.95


def test_every_class_picture_is_of_its_class(network, pictures):
    assert shortcomings(network, pictures) == {}


def test_a_network_from_another_seed_agrees(second, pictures):
    with torch.no_grad():
        likely = second(normalize(pictures.images)).softmax(1).diagonal()
    pairs = zip(CLASSES, likely.tolist(), strict=True)
    assert {name: value for name, value in pairs if value < 0.5} == {}


def test_the_oracle_tells_pictures_of_other_classes(network, pictures):
    rolled = dataclasses.replace(pictures, filters=[*pictures.filters[1:], pictures.filters[0]])
    assert len(shortcomings(network, rolled)) == len(CLASSES)


@pytest.mark.parametrize("architecture", TEXTURE_NETWORKS)
def test_networks_of_other_kinds_classify_held_out_textures(architecture):
    network = texture_network(architecture)
    assert held_out_accuracy(network, per_class=10, size=RECIPES[architecture].crop) > 0.95


@pytest.mark.parametrize("architecture", TEXTURE_NETWORKS)
def test_some_pictures_of_networks_of_other_kinds_are_of_their_class(architecture):
    network = texture_network(architecture)
    some = [CLASSES.index(name) for name in ("stripes_falling", "checks", "bricks", "blobs", "noise")]
    assert shortcomings(network, cv.maximize(network, "logits", some, progress=False)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TEXTURE_NETWORKS)
def test_pictures_of_networks_of_other_kinds_are_of_their_class(architecture):
    network = texture_network(architecture)
    short = shortcomings(network, cv.maximize(network, "logits", progress=False))
    # Where ascent ends hangs on roundings: in bfloat16 the ViT misses a class by a hair (bench/NOTES.md).
    assert len(short) <= 1, short
    for seed in (1, 2) if short else ():
        again = [CLASSES.index(name) for name in short]
        assert shortcomings(network, cv.maximize(network, "logits", again, seed=seed, progress=False)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TEXTURE_NETWORKS)
def test_networks_of_other_kinds_are_as_sure_as_they_are_right(architecture):
    assert 0.7 <= calibration(texture_network(architecture), RECIPES[architecture], seed=1) <= 1.4


@pytest.mark.slow
@pytest.mark.parametrize("architecture", RECIPES)
def test_the_training_script_repeats_itself(architecture):
    first, again = (train(3, architecture, steps=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = train(4, architecture, steps=2).state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("spots", [0, 7])
def test_mixed_pictures_tell_how_much_of_each_class_they_hold(spots):
    labels = torch.arange(20).repeat_interleave(4)
    pictures = labels.float().view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    targets = torch.nn.functional.one_hot(labels).float()
    cycle = Cycle(1, 1.0, mixed=0.5, spots=spots, alike=0.25)
    found, shares = _mixed(pictures, targets, cycle, torch.Generator().manual_seed(0))
    assert torch.allclose(found.mean((1, 2, 3)), shares @ torch.arange(20.0), atol=1e-3)
    changed = (shares.amax(1) < 1).sum()
    assert 20 <= changed < 40  # of 40, a quarter and a few that met themselves hold one class
    flat = (found.flatten(1).amax(1) - found.flatten(1).amin(1)) == 0
    assert 0 < (flat & (shares.amax(1) < 1)).sum() < changed  # some are blended, some are cut


def test_stretched_gratings_are_none_by_the_oracle():
    drawn = _stretched(3, 96, torch.Generator().manual_seed(5))
    assert drawn.shape == (12, 3, 96, 96)
    lowest = min(grating.frequency for grating in GRATINGS.values())
    assert all(spectral_peak(picture)[1] < lowest / 1.5 for picture in drawn)


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
    plan = make_plan(network, layer.layers[0], configure())
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
