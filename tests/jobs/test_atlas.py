"""Pictures and atlases: what they promise of themselves, and the same bits however they are asked for."""

import copy
import csv
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.ascent.loop import Ascent
from cnnvis_fast.config import Config
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.names import parse_filters
from cnnvis_fast.networks.preprocessing import Source
from cnnvis_fast.results.scores import Scorer

LAST = "features.14"
FILTERS = [3, 17, 40]
OPTIONS = {"steps": 6, "size": 64, "progress": False}
PLAIN = {"steps": 8, "size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "progress": False}


@pytest.fixture(scope="module")
def texturenet():
    return cv.load_model("texturenet")


@pytest.fixture(scope="module")
def pictures(texturenet):
    return cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS)


@pytest.fixture(autouse=True)
def same_random_networks():
    torch.manual_seed(0)


def convolution(weight, bias):
    """1x1 with the given weights [out, in]."""
    layer = nn.Conv2d(len(weight[0]), len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight)[..., None, None])
        layer.bias.copy_(torch.tensor(bias))
    return layer


def sleeper(bias=-1.0, inplace=False):
    """Filter 0 is off where pictures start and can be reached, 1 is constant, 2 is awake."""
    weight = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 0.3]]
    return nn.Sequential(convolution(weight, [bias, 0.5, 0.1]), nn.ReLU(inplace=inplace))


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)).eval()


def activation(network, layer, images):
    """What a layer yields, found with nothing of this package."""
    source, kept = network.cnnvis_source, []
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (source.mean, source.std))
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, y: kept.append(y.clone()))
    try:
        with torch.no_grad():
            network((images - mean) / std)
    finally:
        handle.remove()
    return kept[0]


def contents(folder):
    """Every file but the log, which tells of times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def native_bfloat16():
    return resolve_config(Config(), Source("", "", (0.0,), (1.0,), 64)).dtype == "bfloat16"


def same(first, second):
    return torch.equal(first.pixels, second.pixels) and torch.equal(first.scores, second.scores)


# Pictures


def test_images_are_what_an_8_bit_file_holds(pictures):
    assert pictures.images.shape == (3, 3, 64, 64)
    assert pictures.images.dtype == torch.float32
    assert pictures.images.min() >= 0
    assert pictures.images.max() <= 1
    steps = pictures.images * 255
    assert torch.equal(steps.round() / 255, pictures.images)
    assert pictures.images.flatten(1).std(1).min() > 0.01


def test_pictures_are_a_sequence_of_images(pictures):
    assert len(pictures) == 3
    assert torch.equal(torch.stack(list(pictures)), pictures.images)
    assert torch.equal(pictures[-1], pictures.images[2])
    assert pictures[1:].shape == (2, 3, 64, 64)


def test_pictures_know_their_target(pictures):
    assert pictures.layer == LAST
    assert pictures.filters == FILTERS
    assert pictures.status == ["ok"] * 3
    assert pictures.job["model"] == "texturenet"
    assert pictures.job["config"]["steps"] == 6
    assert pictures.job["config"]["size"] == 64
    assert len(pictures.job["weights_sha256"]) == 64


def test_scores_are_the_mean_of_the_plain_networks_channel(texturenet, pictures):
    maps = activation(texturenet, LAST, pictures.images)
    expected = maps.mean((2, 3))[range(3), FILTERS]
    torch.testing.assert_close(pictures.scores, expected, rtol=1e-4, atol=1e-5)


def test_scores_beat_the_start(pictures):
    assert pictures.scores.dtype == pictures.start_scores.dtype == torch.float32
    assert (pictures.scores > pictures.start_scores).all()


def test_the_history_has_every_step(pictures):
    assert pictures.history.shape == (3, 6)
    assert pictures.history.dtype == torch.float32
    assert (pictures.history[:, -1] > pictures.history[:, 0]).all()


def test_robust_scores_are_computed_when_first_read_and_once(texturenet, monkeypatch):
    calls, compute = [], Scorer.robust_scores

    def counted(*arguments, **named):
        calls.append(1)
        return compute(*arguments, **named)

    monkeypatch.setattr(Scorer, "robust_scores", counted)
    pictures = cv.maximize(texturenet, "conv1", [0, 1], steps=2, size=32, progress=False)
    assert calls == []
    first = pictures.robust_scores
    assert pictures.robust_scores is first
    assert len(calls) == 1
    assert first.shape == (2,)
    assert first.isfinite().all()
    assert not torch.equal(first, pictures.scores)


def test_the_sheet_holds_every_picture(pictures):
    sheet = pictures.sheet()
    assert isinstance(sheet, Image.Image)
    shown = np.asarray(sheet)
    tile = (pictures.images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    # A tile that is not larger than its place is shown pixel by pixel.
    places = np.lib.stride_tricks.sliding_window_view(shown, tile.shape)[:, :, 0]
    assert (places == tile).all((-1, -2, -3)).sum() == 1


def test_save_and_atlas_write_the_same_bytes(texturenet, pictures, tmp_path):
    pictures.save(tmp_path / "saved")
    cv.atlas(texturenet, "conv5", tmp_path / "atlas", filters=FILTERS, **OPTIONS)
    saved = contents(tmp_path / "saved")
    assert saved == contents(tmp_path / "atlas")
    assert {*saved} == {
        *(f"{LAST}/{n:04d}.png" for n in FILTERS),
        f"{LAST}/sheet.png",
        "job.json",
        "layers.json",
        "scores.csv",
    }
    pictures.save(tmp_path / "saved")
    assert contents(tmp_path / "saved") == saved


def test_a_tile_holds_the_picture(pictures, tmp_path):
    pictures.save(tmp_path)
    with Image.open(tmp_path / LAST / "0017.png") as tile:
        assert np.array_equal(np.asarray(tile).transpose(2, 0, 1), pictures.pixels[1].numpy())
        told = json.loads(tile.text["cnnvis_fast"])
    assert told["score"] == pytest.approx(float(pictures.scores[1]), abs=1e-6)
    assert told["robust_score"] == pytest.approx(float(pictures.robust_scores[1]), abs=1e-6)


def test_save_refuses_a_folder_of_another_job(texturenet, pictures, tmp_path):
    pictures.save(tmp_path)
    other = cv.maximize(texturenet, "conv5", [3], **{**OPTIONS, "seed": 1})
    with pytest.raises(InputError, match=r"its config\.seed is 0, yours is 1"):
        other.save(tmp_path)


def test_an_atlas_tells_what_it_did(texturenet, tmp_path):
    first = cv.atlas(
        texturenet, ["conv1", "logits", "features.0"], tmp_path, filters=[1, 2], steps=2, size=32
    )
    assert first.layers == ["features.0", "logits"]
    assert first.made == 4
    assert first.seconds > 0
    assert [(row["layer"], row["filter"]) for row in first.scores] == [
        *(("features.0", 1), ("features.0", 2), ("logits", 1), ("logits", 2))
    ]
    assert isinstance(first.sheet("logits"), Image.Image)
    again = cv.atlas(texturenet, "logits", tmp_path, filters=[2, 3], steps=2, size=32)
    assert again.made == 1
    assert [row["filter"] for row in again.scores] == [1, 2, 3]


def test_an_atlas_takes_the_last_convolution_by_itself(texturenet, tmp_path):
    made = cv.atlas(texturenet, out=tmp_path, filters=[0], steps=1, size=32)
    assert made.layers == [LAST]


def test_all_layers_are_all_convolutions_in_full(tmp_path):
    made = cv.atlas(small(), "all", tmp_path, **PLAIN)
    assert made.layers == ["0", "2"]
    assert [row["filter"] for row in made.scores] == [*range(6), *range(5)]


def test_filters_may_be_an_iterator_for_several_layers(tmp_path):
    made = cv.atlas(small(), "all", tmp_path, filters=(n for n in (4, 1)), **PLAIN)
    assert [row["filter"] for row in made.scores] == [1, 4, 1, 4]


def test_progress_speaks_only_when_asked(capfd):
    cv.maximize(small(), "conv1", [0], **PLAIN)
    assert capfd.readouterr() == ("", "")
    cv.maximize(small(), "conv1", [0], **{**PLAIN, "progress": True})
    assert "1/1" in capfd.readouterr().err


# The same bits


@pytest.mark.parametrize(
    "filters",
    [[3], [17], [40], [40, 3, 17], [*range(50, 57), 3, 17, 40], range(41)],
    ids=["3", "17", "40", "other order", "across batches", "many"],
)
def test_a_picture_does_not_depend_on_what_is_asked_for_with_it(filters, texturenet, pictures):
    found = cv.maximize(texturenet, "conv5", filters, **OPTIONS)
    for row, channel in enumerate(found.filters):
        if channel in FILTERS:
            reference = FILTERS.index(channel)
            assert torch.equal(found.pixels[row], pictures.pixels[reference]), channel
            assert torch.equal(found.history[row], pictures.history[reference]), channel
            assert found.scores[row] == pictures.scores[reference]


def test_in_float32_too_a_picture_does_not_depend_on_what_is_asked_for_with_it(texturenet):
    # Here libraries do sum in another order at another batch, so that only padding makes it so.
    options = {**OPTIONS, "dtype": "float32"}
    together = cv.maximize(texturenet, "conv5", [*FILTERS, 50, 51], **options)
    for row in (0, 4):
        alone = cv.maximize(texturenet, "conv5", [together.filters[row]], **options)
        assert torch.equal(alone.pixels[0], together.pixels[row])
        assert torch.equal(alone.history[0], together.history[row])
        assert alone.scores[0] == together.scores[row]


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_picture_does_not_depend_on_the_batch(batch, texturenet, pictures):
    if not native_bfloat16():
        pytest.skip("in float32 libraries sum in another order at another batch, as the documentation tells")
    assert same(cv.maximize(texturenet, "conv5", FILTERS, batch=batch, **OPTIONS), pictures)


def test_robust_scores_do_not_depend_on_the_neighbours(texturenet, pictures):
    alone = cv.maximize(texturenet, "conv5", [17], **OPTIONS)
    assert alone.robust_scores[0] == pictures.robust_scores[1]


PROCESS = """
import hashlib, torch, cnnvis_fast as cv
torch.rand(7)
found = cv.maximize("texturenet", "features.14", [40, 17, 3], steps=4, progress=False)
found = {n: found.pixels[row] for row, n in enumerate(found.filters)}
print(hashlib.sha256(torch.stack([found[n] for n in (3, 17, 40)]).numpy().tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def digest(texturenet):
    found = cv.maximize(texturenet, "conv5", FILTERS, steps=4, progress=False)
    return hashlib.sha256(found.pixels.numpy().tobytes()).hexdigest()


def test_another_process_makes_the_same_bits(digest):
    # Another hash seed, so that the order of sets shows where it matters.
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest


@pytest.mark.skipif(torch.cuda.is_available(), reason="the number of threads matters on a CPU")
def test_another_number_of_threads_is_another_job(texturenet, set_threads):
    jobs = []
    for threads in (1, 2):
        set_threads(threads)
        jobs.append(cv.maximize(texturenet, "conv1", [0], steps=1, size=32, progress=False).job)
    assert jobs[0] != jobs[1]


def test_the_global_random_numbers_neither_matter_nor_move(texturenet, pictures):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    assert same(cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS), pictures)
    assert torch.equal(torch.rand(2), expected)


def test_another_seed_and_another_filter_make_another_picture(texturenet, pictures):
    other = cv.maximize(texturenet, "conv5", FILTERS, seed=1, **OPTIONS)
    every = [*pictures.pixels, *other.pixels]
    assert len({picture.numpy().tobytes() for picture in every}) == 6


# The network that is handed over


def used_network():
    """Half of it in train mode, with a hook of the caller's own."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    network.train()
    network[1].eval()
    network[3].register_forward_hook(lambda *_: None)
    return network


def test_the_network_is_left_as_it_was(tmp_path):
    network = used_network()
    modes = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    state, identities = copy.deepcopy(network.state_dict()), [id(p) for p in network.parameters()]
    cv.maximize(network, "conv2", **PLAIN).robust_scores.sum()
    cv.atlas(network, "all", tmp_path, **PLAIN)
    assert [module.training for module in network.modules()] == modes
    assert [len(module._forward_hooks) for module in network.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [id(p) for p in network.parameters()] == identities
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    assert not hasattr(network, "cnnvis_source")


def test_train_mode_makes_no_other_picture():
    network = used_network()
    first = cv.maximize(network, "conv2", **PLAIN)
    assert same(cv.maximize(network.eval(), "conv2", **PLAIN), first)


def test_a_network_in_double_precision_makes_the_same_picture():
    assert same(cv.maximize(small().double(), "conv2", **PLAIN), cv.maximize(small(), "conv2", **PLAIN))


def test_a_relu_in_place_does_not_hide_what_was_before_it():
    network = nn.Sequential(convolution([[0.1, 0.1, 0.1]], [-5.0]), nn.ReLU(inplace=True))
    found = cv.maximize(network, "conv1", **PLAIN)
    assert found.start_scores[0] == pytest.approx(-5, abs=0.1)
    assert -5 < found.scores[0] < 0
    assert found.status == ["ok"]


def test_a_network_that_cannot_be_traced_says_so_and_gets_its_pictures():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > -1e9 else self.conv(-x)

    network = Branching()
    with pytest.warns(UserWarning, match="hook"):
        found = cv.maximize(network, "conv", **PLAIN)
    assert found.status == ["ok"] * 4
    assert not network.conv._forward_hooks


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_other_channels_get_pictures_of_as_many(channels, tmp_path):
    network = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3))
    options = {"steps": 8, "size": 32, "mean": (0.5,) * channels, "std": (0.5,) * channels, "progress": False}
    found = cv.maximize(network, "conv2", **options)
    assert found.images.shape == (2, channels, 32, 32)
    assert (found.scores > found.start_scores).all()
    found.save(tmp_path)
    with Image.open(tmp_path / "2" / "0000.png") as tile:
        assert tile.size == (32, 32)
        assert np.array_equal(np.asarray(tile), found.pixels[0, 0].numpy())


def test_convolutions_may_be_defined_in_another_order_than_they_run():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.Conv2d(4, 2, 3)
            self.early = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.late(self.early(x))

    assert cv.maximize(Mixed(), "late", **PLAIN).images.shape == (2, 3, 32, 32)


def test_an_odd_size_is_as_good():
    found = cv.maximize(small(), "conv2", **{**PLAIN, "size": 33})
    assert found.images.shape == (5, 3, 33, 33)
    assert found.status == ["ok"] * 5


# Interruptions


def interrupt_in(monkeypatch, batch, within):
    """Presses Ctrl-C in the given batch: before it, or within it at its third step."""
    run, calls = Ascent.run, []

    def interrupted(self, filters, watch):
        calls.append(filters)
        if len(calls) < batch:
            return run(self, filters, watch)
        if not within:
            raise KeyboardInterrupt

        def press(step, *_):
            if step == 3:
                raise KeyboardInterrupt

        return run(self, filters, press)

    monkeypatch.setattr(Ascent, "run", interrupted)


@pytest.mark.parametrize("within", [False, True], ids=["before a batch", "within a batch"])
def test_an_interrupted_atlas_goes_on_to_the_same_bytes(within, texturenet, tmp_path, monkeypatch):
    options = {"filters": [5, 1, 9, 4, 3], "batch": 2, "steps": 4, "size": 32, "progress": False}
    cv.atlas(texturenet, "conv5", tmp_path / "undisturbed", **options)
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2, within)
        with pytest.raises(KeyboardInterrupt):
            cv.atlas(texturenet, "conv5", tmp_path / "job", **options)
    expected, found = contents(tmp_path / "undisturbed"), contents(tmp_path / "job")
    tiles = {f"{LAST}/0001.png", f"{LAST}/0005.png"}
    assert {*found} == tiles | {f"{LAST}/sheet.png", "job.json", "layers.json", "scores.csv"}
    assert all(found[name] == expected[name] for name in tiles)
    with (tmp_path / "job" / "scores.csv").open() as file:
        assert [row["filter"] for row in csv.DictReader(file)] == ["1", "5"]
    again = cv.atlas(texturenet, "conv5", tmp_path / "job", **options)
    assert again.made == 3
    assert contents(tmp_path / "job") == expected


def test_an_interruption_in_the_first_batch_leaves_a_folder_to_go_on_with(texturenet, tmp_path, monkeypatch):
    options = {"filters": [5, 1], "steps": 4, "size": 32, "progress": False}
    with monkeypatch.context() as patch:
        interrupt_in(patch, 1, within=True)
        with pytest.raises(KeyboardInterrupt):
            cv.atlas(texturenet, "conv5", tmp_path, **options)
    assert not list(tmp_path.rglob("*.png"))
    assert cv.atlas(texturenet, "conv5", tmp_path, **options).made == 2


def test_an_interruption_in_the_second_layer_keeps_the_first_whole(tmp_path, monkeypatch):
    options = {**PLAIN, "batch": 8}  # the first layer, 6 filters, is one batch
    whole = cv.atlas(small(), "all", tmp_path / "undisturbed", **options)
    assert whole.made == 11
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2, within=True)
        with pytest.raises(KeyboardInterrupt):
            cv.atlas(small(), "all", tmp_path / "job", **options)
    kept, expected = contents(tmp_path / "job"), contents(tmp_path / "undisturbed")
    assert {name: kept[name] for name in kept if name.startswith("0/")} == {
        name: content for name, content in expected.items() if name.startswith("0/")
    }
    assert cv.atlas(small(), "all", tmp_path / "job", **options).made == 5
    assert contents(tmp_path / "job") == expected


# Starts without a gradient, and numbers that are none


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("preset", ["natural", "strong"])
def test_a_dead_start_is_redirected_and_succeeds(preset, inplace):
    found = cv.maximize(sleeper(inplace=inplace), "1", preset=preset, **PLAIN)
    assert found.status == ["redirected", "dead", "ok"]
    assert found.start_scores[0] == 0
    assert found.scores[0] > 0.1


def test_a_dead_layer_below_the_target_is_redirected():
    network = nn.Sequential(*sleeper(), convolution([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.0, 0.0]))
    found = cv.maximize(network, "2", **PLAIN)
    assert found.status == ["redirected", "dead"]
    assert found.scores[0] > found.start_scores[0]


def test_a_functional_relu_is_redirected_too():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = sleeper()[0]

        def forward(self, x):
            return torch.relu(self.conv(x))

    found = cv.maximize(Functional(), "logits", **PLAIN)
    assert found.status == ["redirected", "dead", "ok"]
    assert found.scores[0] > 0.1


def test_a_redirected_picture_is_the_same_alone_and_disturbs_nobody():
    together = cv.maximize(sleeper(), "1", **PLAIN)
    for channel in range(3):
        alone = cv.maximize(sleeper(), "1", [channel], **PLAIN)
        assert torch.equal(alone.pixels[0], together.pixels[channel]), channel
        assert alone.status == [together.status[channel]]
    wide_awake = sleeper()
    with torch.no_grad():
        wide_awake[0].bias[2] = 3.0  # on for every picture
    kept = cv.maximize(wide_awake, "1", **PLAIN)
    assert kept.status[0] == "redirected"
    awake = cv.maximize(nn.Sequential(wide_awake[0], nn.Identity()), "1", [2], **PLAIN)
    assert torch.equal(awake.pixels[0], kept.pixels[2])


@pytest.mark.parametrize(
    "options", [{}, {"preset": "strong"}, {"parameters": "pixel"}, {"weight_decay": 0.5}]
)
def test_a_constant_unit_is_dead_and_never_ok(options, tmp_path):
    network = copy.deepcopy(small())
    with torch.no_grad():
        network[2].weight[1] = 0
        network[2].bias[1] = 7
    made = cv.atlas(network, "conv2", tmp_path, **PLAIN, **options)
    assert [row["status"] for row in made.scores] == ["ok", "dead", "ok", "ok", "ok"]
    with (tmp_path / "scores.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)][1] == "dead"


def test_no_step_that_helps_is_stalled():
    # So small a rate that no pixel changes: the score cannot beat the start's.
    found = cv.maximize(small(), "conv2", **PLAIN, rate=1e-9)
    assert found.status == ["stalled"] * 5
    assert torch.equal(found.scores, found.start_scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:.*cannot be cut")
def test_a_network_of_broken_weights_is_nonfinite(value, tmp_path):
    network = small()
    with torch.no_grad():
        network[0].weight[0, 0, 1, 1] = value
    found = cv.maximize(network, "conv2", **PLAIN)
    assert found.status == ["nonfinite"] * 5
    assert found.images.isfinite().all()
    found.save(tmp_path)
    assert [row.split(",")[3] for row in (tmp_path / "scores.csv").read_text().split()[1:]] == [
        "nonfinite"
    ] * 5


def test_one_broken_filter_does_not_break_the_others(texturenet):
    network = copy.deepcopy(texturenet)
    network.features[14].weight[7] = float("nan")
    found = cv.maximize(network, "conv5", [6, 7, 8], **OPTIONS)
    assert found.status == ["ok", "nonfinite", "ok"]
    sound = cv.maximize(texturenet, "conv5", [6, 8], **OPTIONS)
    assert torch.equal(found.pixels[[0, 2]], sound.pixels)


@pytest.mark.filterwarnings("ignore:.*cannot be cut")
def test_provenance_is_json_even_where_a_score_is_not_a_number(tmp_path):
    network = small()
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    cv.maximize(network, "conv2", [0], **PLAIN).save(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    with Image.open(tmp_path / "2" / "0000.png") as tile:
        told = json.loads(tile.text["cnnvis_fast"], parse_constant=refuse)
    assert told["status"] == "nonfinite"


# Objectives


NEURON = {**PLAIN, "objective": "neuron"}


def test_a_neuron_is_the_central_one_by_itself():
    central = cv.maximize(small(), "conv2", [1], **NEURON)
    assert same(central, cv.maximize(small(), "conv2", [1], **NEURON, position=(16, 16)))
    assert not same(central, cv.maximize(small(), "conv2", [1], **NEURON, position=(15, 16)))


def test_a_neurons_score_is_that_of_its_position(texturenet):
    found = cv.maximize(texturenet, "conv5", FILTERS, objective="neuron", position=(2, 11), **OPTIONS)
    expected = activation(texturenet, LAST, found.images)[range(3), FILTERS, 2, 11]
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert (found.scores > found.start_scores).all()


@pytest.mark.parametrize("layer, reach", [("conv1", 1), ("conv2", 2)])
def test_a_neuron_changes_only_what_it_sees(layer, reach):
    still = {"parameters": "pixel", "transforms": "none", **NEURON}
    # Both start from the same noise, so that they differ where one of them has moved.
    first, second = (cv.maximize(small(), layer, [1], position=p, **still).pixels for p in ((5, 5), (20, 26)))
    changed = (first != second).any(1)[0]
    expected = torch.zeros(32, 32, dtype=torch.bool)
    for row, column in ((5, 5), (20, 26)):
        expected[row - reach : row + reach + 1, column - reach : column + reach + 1] = True
    assert not (changed & ~expected).any()
    assert changed[5, 5]
    assert changed[20, 26]


@pytest.mark.parametrize("position", [(32, 0), (0, 32), (-1, 0), (0, -33), (999, 999)])
@pytest.mark.parametrize("layers", ["conv2", ["conv1", "conv2"]], ids=["one layer", "two layers"])
def test_a_neuron_outside_is_refused_before_anything_is_written(position, layers, tmp_path):
    with pytest.raises(InputError, match="32 x 32"):
        cv.atlas(small(), layers, tmp_path / "job", position=position, **NEURON)
    assert not (tmp_path / "job").exists()


def test_a_neuron_of_vectors_is_the_unit(texturenet):
    options = {"steps": 2, "size": 32, "progress": False}
    unit = cv.maximize(texturenet, "classifier", [2], objective="neuron", **options)
    assert same(unit, cv.maximize(texturenet, "classifier", [2], **options))
    with pytest.raises(InputError, match="`position`"):
        cv.maximize(texturenet, "classifier", [2], objective="neuron", position=(0, 0), **options)


def test_a_logit_is_the_networks_output_before_softmax(texturenet):
    found = cv.maximize(texturenet, "logits", [2, 5], objective="logit", **OPTIONS)
    source = texturenet.cnnvis_source
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (source.mean, source.std))
    with torch.no_grad():
        expected = texturenet((found.images - mean) / std)[[0, 1], [2, 5]]
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert (found.scores > found.start_scores).all()
    assert found.status == ["ok", "ok"]


def test_a_logit_of_maps_is_refused(texturenet, tmp_path):
    for layers in ("conv5", ["logits", "conv5"]):
        with pytest.raises(InputError, match="logit"):
            cv.atlas(texturenet, layers, tmp_path / "job", objective="logit", **OPTIONS)
    assert not (tmp_path / "job").exists()


# Parameters, transforms, second moments: each climbs, and each in its own way


# One number for all coefficients asks for a flatter spectrum and smaller steps than one for each.
SLOWLY = {"decay": 1.0, "amplitude": 0.25, "cutoff": 0.0, "rate": 0.05}
WAYS = {
    "default": {},
    "image": {"second_moment": "image", **SLOWLY},
    "band": {"second_moment": "band"},
    "momentum": {"second_moment": "none", **SLOWLY},
    "pixel": {"parameters": "pixel", "second_moment": "image"},
    "pixel coefficient": {"parameters": "pixel", "second_moment": "coefficient"},
    "jitter": {"transforms": "jitter"},
    "still": {"transforms": "none"},
    "strong": {"preset": "strong"},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def climbed(texturenet):
    return {way: cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS, **WAYS[way]) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_raises_the_score(way, climbed):
    found = climbed[way]
    assert found.status == ["ok"] * 3
    assert (found.scores > found.start_scores).all()
    assert (found.scores - found.start_scores).mean() > 0.05


def test_every_way_makes_its_own_picture(climbed):
    different = [way for way in WAYS if way not in ("bfloat16", "float32")]
    every = {climbed[way].pixels.numpy().tobytes() for way in different}
    assert len(every) == len(different)


def test_without_transforms_the_history_is_the_score(climbed):
    # Both look at the start, the history with a network of lower precision and before rounding to 8 bits.
    found = climbed["still"]
    torch.testing.assert_close(found.history[:, 0], found.start_scores, rtol=0.05, atol=0.05)


def test_weight_decay_keeps_parameters_smaller(texturenet, climbed):
    held = cv.maximize(texturenet, "conv5", FILTERS, weight_decay=100.0, **OPTIONS)
    spread = (held.images - 0.5).abs().mean((1, 2, 3))
    assert (spread < (climbed["default"].images - 0.5).abs().mean((1, 2, 3))).all()


# Filters


@pytest.mark.parametrize(
    "given, meant",
    [
        (None, [*range(8)]),
        ("0-2,5", [0, 1, 2, 5]),
        ("5, 0-2 ,1", [5, 0, 1, 2]),
        ("7", [7]),
        ("007", [7]),
        ([3, 1, 3], [3, 1]),
        (range(2), [0, 1]),
        (np.array([4, 2]), [4, 2]),
        (torch.tensor([4, 2]), [4, 2]),
        (iter([6]), [6]),
        (5, [5]),
    ],
)
def test_filters_are_read(given, meant):
    found = parse_filters(given, 8, "conv")
    assert found == meant
    assert {type(number) for number in found} == {int}


@pytest.mark.parametrize(
    "given",
    [
        *(
            "",
            ",",
            "1,",
            "a",
            "1-",
            "-1",
            "1--2",
            "3-1",
            "0-8",
            "8",
            "1.5",
            "1;2",
            "²",
            "0-999999999999999999",
        ),
        *([8], [-1], [], [1.5], ["x"], [None], 8, -1, 1.5),
    ],
    ids=repr,
)
def test_filters_that_are_none_are_refused(given):
    with pytest.raises(InputError) as caught:
        parse_filters(given, 8, "conv")
    assert "\n" not in str(caught.value)


# Wrong arguments


@pytest.mark.parametrize(
    "arguments, options",
    [
        (("texturnet", "conv1"), {}),
        ((None, "conv1"), {}),
        (("texturenet", "conv9"), {}),
        (("texturenet", ["conv1", "conv9"]), {}),
        (("texturenet", ["conv1", "conv2"]), {"filters": [30]}),
        (("texturenet", 5), {}),
        (("texturenet", "conv1"), {"steps": 0}),
        (("texturenet", "conv1"), {"size": 4}),
        (("texturenet", "conv1"), {"step": 4}),
        (("texturenet", "conv1"), {"weights": "missing.pth"}),
        (("texturenet", "conv1"), {"mean": (0.5,) * 3}),
        (("texturenet", "conv1"), {"device": "tpu"}),
    ],
    ids=lambda value: str(value) if value else "",
)
def test_a_wrong_argument_is_refused_before_anything_is_written(arguments, options, tmp_path):
    with pytest.raises(InputError) as caught:
        cv.atlas(*arguments, tmp_path / "job", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "job").exists()


def test_a_network_without_convolutions_asks_for_a_layer(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(InputError, match="no convolution"):
        cv.atlas(network, None, tmp_path / "job", **PLAIN)
    assert not (tmp_path / "job").exists()
    assert cv.maximize(network, "1", **PLAIN).status == ["ok"] * 4


def test_a_layer_that_never_runs_is_refused():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.spare = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(InputError, match="spare"):
        cv.maximize(Unused(), "spare", **PLAIN)


def test_a_size_below_what_the_network_takes_is_refused():
    network = nn.Sequential(*(nn.Conv2d(3, 3, 7) for _ in range(6)))
    with pytest.raises(InputError, match="does not run on a 3 x 32 x 32 picture"):
        cv.maximize(network, "conv6", **PLAIN)
