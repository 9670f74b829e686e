"""Top patches: the same as plain passes find, however they are cut into batches and shards."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.errors import InputError
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.inspection.best_places import Top
from cnnvis_fast.inspection.patch_folder import list_images
from cnnvis_fast.texturenet import textures

OPTIONS: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": 24, "batch": 4, "progress": False}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 7, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(7 * 25, 4)),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "below").mkdir()
    generator = np.random.default_rng(3)
    for number in range(11):
        coarse = generator.integers(0, 256, (6, 6, 3), np.uint8)
        place = folder / ("below" if number % 3 == 0 else ".") / f"{number:02d}.png"
        Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC).save(place)
    return folder


def outputs(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """What plain passes of the whole network yield at layers 0, 3 and 6, before anything overwrites it."""
    pictures = [np.asarray(Image.open(path)) for path in list_images(folder)]
    x = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    found = {}
    with torch.no_grad():
        for name, module in model.named_children():
            x = module(x)
            found[name] = x.clone()
    return found


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    paths = (path for path in folder.rglob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# What is found


def test_they_are_what_plain_passes_find(images: Path, tmp_path: Path) -> None:
    model = network()
    expected = outputs(model, images)
    names = [path.relative_to(images).as_posix() for path in list_images(images)]
    found = cv.top_patches(model, images, ["0", "3", "6"], tmp_path, k=3, **OPTIONS)
    assert found.layers == [*found.finished] == ["0", "3", "6"]
    for layer, values in expected.items():
        if layer not in found.finished:
            continue
        values = values if values.ndim == 4 else values[..., None, None]
        best = values.flatten(2).amax(2)
        for unit, patches in found.finished[layer].items():
            scores, order = best[:, unit].sort(descending=True, stable=True)
            assert [patch["image"] for patch in patches] == [names[n] for n in order[:3]]
            assert [patch["score"] for patch in patches] == pytest.approx(scores[:3].tolist(), rel=1e-4)
            for patch, n in zip(patches, order, strict=False):
                row, column = patch["position"]
                assert float(values[n, unit, row, column]) == pytest.approx(patch["score"], rel=1e-4)
    assert [patch["box"] for patch in found.finished["6"][0]] == [[0, 0, 24, 24]] * 3
    assert model.training  # its mode is its own


def test_scores_are_those_before_a_relu(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(inplace=True))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-2.5)
    Image.new("RGB", (24, 24)).save(tmp_path / "black.png")
    found = cv.top_patches(model, tmp_path, "0", tmp_path / "out", **OPTIONS)
    assert found.finished["0"][0][0]["score"] == -2.5


def test_of_equal_pictures_the_first_name_wins(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        Image.new("RGB", (24, 24), (90, 10, 200)).save(tmp_path / f"{name}.png")
    found = cv.top_patches(network(), tmp_path, "0", tmp_path / "out", k=2, **OPTIONS)
    for patches in found.finished["0"].values():
        assert [patch["image"] for patch in patches] == ["a.png", "b.png"]


def test_a_patch_is_cut_out_of_its_picture(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 4, stride=2, bias=False))
    with torch.no_grad():
        model[0].weight.zero_()[0, 0] = 1  # red excites it
    picture = np.zeros((24, 24, 3), np.uint8)
    picture[8:12, 14:18] = (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "red.png")
    found = cv.top_patches(model, tmp_path, "0", tmp_path / "out", k=1, **OPTIONS)
    assert found.finished["0"][0][0]["box"] == [14, 8, 18, 12]
    with Image.open(tmp_path / "out" / "0" / "patches" / "0000.jpg") as sheet:
        pixels = np.asarray(sheet).astype(int)
    assert pixels.shape[:2] == (112, 112)
    assert abs(pixels - [254, 0, 0]).max() < 4


# Receptive fields


@pytest.mark.filterwarnings("ignore:the receptive field of tokens")
def test_tokens_and_maps_with_channels_last_have_units_too(images: Path, tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 6, 4, 4)
            self.mix = nn.Linear(6, 5)
            self.tokens = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.tokens(self.mix(self.convolution(x).permute(0, 2, 3, 1)).flatten(1, 2)).mean(1)

    found = cv.top_patches(Last(), images, ["mix", "tokens"], tmp_path, k=2, **OPTIONS)
    assert [len(units) for units in found.finished.values()] == [5, 3]
    patch = found.finished["mix"][0][0]
    row, column = patch["position"]
    assert patch["box"] == [4 * column, 4 * row, 4 * column + 4, 4 * row + 4]
    assert found.finished["tokens"][0][0]["box"] == [0, 0, 24, 24]


def test_where_the_field_is_not_known_the_picture_is_shown_and_a_note_says_so(
    images: Path, tmp_path: Path
) -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.convolution(x if x.sum() > 1e9 else -x)

    with pytest.warns(UserWarning, match="receptive field of convolution is not known"):
        found = cv.top_patches(Untraceable(), images, None, tmp_path, k=1, **OPTIONS)
    assert found.finished["convolution"][0][0]["box"] == [0, 0, 24, 24]


# Batches, shards, memory


def test_shards_in_any_order_give_the_same_files(images: Path, tmp_path: Path) -> None:
    model = network()
    cv.top_patches(model, images, ["0", "3"], tmp_path / "whole", k=3, **OPTIONS)
    for part in (2, 0, 1):
        found = cv.top_patches(model, images, ["0", "3"], tmp_path / "parts", k=3, shard=(part, 3), **OPTIONS)
        assert [*found.finished] == (["0", "3"] if part == 1 else [])
    for pattern in ("patches.json", "*.jpg"):
        whole = contents(tmp_path / "whole", pattern)
        assert contents(tmp_path / "parts", pattern) == whole
        assert whole


def test_a_shard_that_is_done_is_not_run_again(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    model = network()
    cv.top_patches(model, images, "0", tmp_path, shard=(0, 2), **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("cnnvis_fast.inspection.top_patches._collect", lambda *_: pytest.fail("it ran again"))
        cv.top_patches(model, images, "0", tmp_path, shard=(0, 2), **OPTIONS)
    found = cv.top_patches(model, images, ["0", "3"], tmp_path, shard=(1, 2), **OPTIONS)
    assert [*found.finished] == ["0"]


def test_a_call_that_is_stopped_leaves_nothing_half(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cnnvis_fast.inspection.patch_sheets._tile", stop)
        with pytest.raises(KeyboardInterrupt):
            cv.top_patches(network(), images, "0", tmp_path / "stopped", **OPTIONS)
    assert [*contents(tmp_path / "stopped")] == ["0/patches/shard-0-of-1.json"]
    cv.top_patches(network(), images, "0", tmp_path / "stopped", **OPTIONS)
    cv.top_patches(network(), images, "0", tmp_path / "whole", **OPTIONS)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_few_pictures_are_held_at_once(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from cnnvis_fast.inspection import top_patches

    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        shutil.copy(images / "01.png", many / f"{number:03d}.png")
    alive: set[int] = set()
    most = 0
    read = top_patches.read_image

    def counted(*arguments: Any) -> Any:
        nonlocal most
        picture = read(*arguments)
        alive.add(id(picture))
        weakref.finalize(picture, alive.discard, id(picture))
        most = max(most, len(alive))
        return picture

    monkeypatch.setattr(top_patches, "read_image", counted)
    gc.collect()
    cv.top_patches(network(), many, "0", tmp_path / "out", **OPTIONS)
    assert 0 < most <= 16


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_keeps_the_same(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 5))
    # Few distinct values, so that many are equal.
    flat = data.draw(
        st.lists(st.sampled_from([-1.0, 0.0, 2.0, np.nan]), min_size=count * 12, max_size=count * 12)
    )
    values = np.array(flat, np.float32).reshape(count, 3, 2, 2)
    whole = Top(k)
    whole.update(range(count), values)
    parts = data.draw(st.integers(1, 4))
    shards = []
    for part in range(parts):
        numbers = list(range(part, count, parts))
        top = Top(k)
        for number in numbers:
            top.update([number], values[[number]])
        if numbers:
            shards.append(Top.from_json(k, json.loads(json.dumps(top.to_json()))))
    merged = Top(k)
    for top in data.draw(st.permutations(shards)):
        merged.merge(top)
    assert merged.to_json() == whole.to_json()
    for unit in range(3):
        best = np.where(np.isfinite(values[:, unit]), values[:, unit], -np.inf).reshape(count, -1).max(1)
        expected = sorted((-score, n) for n, score in enumerate(best) if np.isfinite(score))[:k]
        assert [(-kept[0], kept[1]) for kept in whole.to_json()[unit]] == expected


# What is wrong


def test_what_is_no_picture_is_left_out_and_told(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "images" / "notes.txt").write_text("no picture either")
    with pytest.warns(UserWarning, match=r"skipped files .*broken\.jpg"):
        found = cv.top_patches(network(), tmp_path / "images", "0", tmp_path / "out", **OPTIONS)
    assert [Path(name).name for name in found.skipped] == ["broken.jpg"]
    assert len(found.finished["0"][0]) == 9


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0}, "`k`"),
        ({"k": True}, "`k`"),
        ({"batch": 0}, "`batch`"),
        ({"shard": (2, 2)}, "`shard`"),
        ({"shard": 1}, "`shard`"),
        ({"resize": "crop"}, "`resize`"),
        ({"size": 0}, "size"),
        ({"layers": ["9"]}, "unknown layer"),
        ({"images": "missing"}, "no folder of photos"),
        ({"images": ""}, "no folder of photos"),
        ({"images": "EMPTY"}, "no photos"),
        ({"out": ""}, "`out`"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_refused(
    change: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    arguments = {"images": images, "layers": ["0"], "out": tmp_path / "out", **OPTIONS, **change}
    if arguments["images"] == "EMPTY":
        arguments["images"] = tmp_path / "empty"
    with pytest.raises(InputError, match=message):
        cv.top_patches(network(), **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_patches_is_refused(images: Path, tmp_path: Path) -> None:
    cv.top_patches(network(), images, "0", tmp_path, **OPTIONS)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="their k is 9, yours is 3"):
        cv.top_patches(network(), images, "0", tmp_path, k=3, **OPTIONS)
    with pytest.raises(InputError, match="their weights_sha256"):
        cv.top_patches(network(1), images, "0", tmp_path, **OPTIONS)
    assert contents(tmp_path) == before
    (tmp_path / "0" / "patches" / "patches.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        cv.top_patches(network(), images, "0", tmp_path, **OPTIONS)


def test_the_atlas_of_another_network_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"weights_sha256": "0"}))
    with pytest.raises(InputError, match="other weights"):
        cv.top_patches(network(), images, "0", tmp_path, **OPTIONS)
    assert [*contents(tmp_path)] == ["job.json"]


def test_only_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped files"),
        pytest.raises(InputError, match="no photo of this shard"),
    ):
        cv.top_patches(network(), tmp_path, "0", tmp_path / "out", **OPTIONS)


def test_a_network_that_stops_with_an_error_is_one_sentence(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not run on a 3 x 8 x 8"):
        cv.top_patches(network(), images, "6", tmp_path, **{**OPTIONS, "size": 8})


# The command, and the page


def test_the_command_adds_patches_to_the_page(images: Path, tmp_path: Path, capsys: Any) -> None:
    cv.atlas("texturenet", "conv1", tmp_path, filters=[0, 1], steps=2, size=32, progress=False)
    arguments = ["patches", "texturenet", "--images", str(images), "--layer", "conv1", "--out", str(tmp_path)]
    assert main([*arguments, "--shard", "0/2"]) == 0
    assert "shards are missing" in capsys.readouterr().out
    assert main([*arguments, "--shard", "1/2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["layers"]["features.0"]["23"]) == 9
    page = (tmp_path / "features.0" / "units.js").read_text()
    found = json.loads(page.removeprefix("cnnvis.details(").removesuffix(");\n"))["patches"]
    assert found["units"] == told["layers"]["features.0"]
    assert main([*arguments, "--shard", "2"]) == 2
    assert "0/4" in capsys.readouterr().err


@pytest.mark.slow
def test_patches_of_class_units_are_of_their_class(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    (tmp_path / "textures").mkdir()
    for name in textures.CLASSES:
        drawn = (textures.draw(name, 100, 96, generator) * 255).round().byte().numpy()
        for number, picture in enumerate(drawn):
            to_image(picture).save(tmp_path / "textures" / f"{name}-{number:03d}.png")
    found = cv.top_patches("texturenet", tmp_path / "textures", "logits", tmp_path / "out", progress=False)
    units = found.finished["logits"]
    assert len(units) == len(textures.CLASSES) == 20
    for unit, name in enumerate(textures.CLASSES):
        share = sum(patch["image"].rsplit("-", 1)[0] == name for patch in units[unit]) / 9
        print(f"{name}: {share:.0%}")
        assert share >= 0.9, name
