"""The folder of an atlas: finished tiles are kept, damaged or foreign ones are made again."""

import dataclasses
import json
import shutil
from collections import Counter

import pytest
import torch
from PIL import Image
from support.job_folders import OPTIONS, contents, rows
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.storage.job_folder import COLUMNS, Store


def network(seed=0):
    """Two layers, so small that a picture takes milliseconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)).eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed job."""
    return cv.atlas(network(), "all", tmp_path_factory.mktemp("whole"), **OPTIONS)


# Places that cannot be written


def test_an_unwritable_place_is_refused_before_anything_runs(tmp_path, monkeypatch):
    def run(*_, **__):
        raise AssertionError("the ascent ran for nothing")

    monkeypatch.setattr("cnnvis_fast.ascent.loop.Ascent.run", run)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        cv.atlas(network(), "conv2", tmp_path / "file" / "job", **OPTIONS)


# Whole jobs


def test_a_jobs_folder_has_its_files(whole):
    names = {*contents(whole.store.out)}
    tiles = {f"0/{n:04d}.png" for n in range(6)} | {f"2/{n:04d}.png" for n in range(5)}
    assert names == tiles | {"0/sheet.png", "2/sheet.png", "job.json", "layers.json"} | {
        *("scores.csv", "log.jsonl")
    }
    assert len(rows(whole.store)) == 11


def test_provenance_tells_what_a_tile_was_made_with(whole):
    with Image.open(whole.store.folder("2") / "0003.png") as image:
        told = json.loads(image.text["cnnvis_fast"])
    job = json.loads((whole.store.out / "job.json").read_text())
    assert (told["layer"], told["filter"], told["steps"]) == ("2", 3, 2)
    assert told["config"] == job["config"]
    assert told["config"]["size"] == 32
    assert told["config"]["dtype"] in ("float32", "bfloat16")
    row = rows(whole.store)[6 + 3]
    for column in COLUMNS:
        assert row[column] == str(told[column]), column


@pytest.mark.parametrize(
    "calls",
    [
        [{"layers": "all"}],
        [{"layers": ["conv2", "conv1"]}],
        [{"layers": ["conv2"], "filters": [4, 0]}, {"layers": "all", "filters": "0-4"}, {"layers": "all"}],
        [{"layers": "0", "filters": [n]} for n in (5, 2, 0, 1, 4, 3)]
        + [{"layers": "2", "filters": "2,0,1,4,3"}],
    ],
    ids=["alike", "other order of layers", "in parts", "one by one"],
)
def test_however_it_grew_the_folder_holds_the_same_bytes(calls, whole, tmp_path):
    for call in calls:
        made = cv.atlas(network(), call["layers"], tmp_path, filters=call.get("filters"), **OPTIONS)
        assert {row["status"] for row in made.scores} <= {"ok", "redirected", "stalled"}
    # The log alone tells of times.
    expected, found = contents(whole.store.out), contents(tmp_path)
    del expected["log.jsonl"], found["log.jsonl"]
    assert found == expected


def test_finished_tiles_are_not_made_again(whole, tmp_path, monkeypatch):
    shutil.copytree(whole.store.out, tmp_path / "job")

    def run(*_, **__):
        raise AssertionError("a finished tile was made again")

    monkeypatch.setattr("cnnvis_fast.ascent.loop.Ascent.run", run)
    before = contents(tmp_path / "job")
    again = cv.atlas(network(), "all", tmp_path / "job", **OPTIONS)
    assert again.made == 0
    assert len(again.scores) == 11
    assert contents(tmp_path / "job") == before


def damage(folder):
    """Hurts four tiles of layer 2, each in its way, and the files that derive from them."""
    tile = folder / "2" / "0000.png"
    tile.write_bytes(tile.read_bytes()[:-5])
    tile = folder / "2" / "0001.png"
    tile.write_bytes(tile.read_bytes()[:100])
    tile = folder / "2" / "0002.png"
    content = bytearray(tile.read_bytes())
    content[-30] ^= 1
    tile.write_bytes(bytes(content))
    (folder / "2" / "0003.png").unlink()
    (folder / "2" / "sheet.png").write_bytes(b"")
    (folder / "scores.csv").unlink()


def test_damaged_tiles_are_made_anew_and_the_others_are_not(whole, tmp_path):
    shutil.copytree(whole.store.out, tmp_path / "job")
    damage(tmp_path / "job")
    again = cv.atlas(network(), "conv2", tmp_path / "job", **OPTIONS)
    assert again.made == 4
    expected, found = contents(whole.store.out), contents(tmp_path / "job")
    assert found.pop("log.jsonl").startswith(expected.pop("log.jsonl"))
    assert found == expected


def test_a_tile_of_another_job_in_its_place_is_made_anew(whole, tmp_path):
    shutil.copytree(whole.store.out, tmp_path / "job")
    foreign = cv.atlas(network(), "conv2", tmp_path / "foreign", filters=[1], seed=1, **OPTIONS)
    shutil.copy(foreign.store.folder("2") / "0001.png", tmp_path / "job" / "2")
    assert cv.atlas(network(), "conv2", tmp_path / "job", **OPTIONS).made == 1
    assert contents(tmp_path / "job", "000*.png") == contents(whole.store.out, "000*.png")


@pytest.mark.parametrize(
    "change, name",
    [
        ({"steps": 3}, "config.steps"),
        ({"seed": 1}, "config.seed"),
        ({"size": 40}, "config.size"),
        ({"preset": "strong"}, "config."),
        ({"mean": (0.4,) * 3}, "mean"),
        ({"dtype": "float32", "batch": 2}, "config.batch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_jobs_options_are_refused_by_name(change, name, whole):
    before = contents(whole.store.out)
    with pytest.raises(InputError, match=rf"its {name}"):
        cv.atlas(network(), "conv2", whole.store.out, **{**OPTIONS, **change})
    assert contents(whole.store.out) == before


def test_other_weights_are_another_job(whole):
    digests = [weights_digest(network(**seed))[:8] for seed in ({}, {"seed": 1})]
    with pytest.raises(
        InputError, match=r"other weights \({}\) than this network's \({}\): load".format(*digests)
    ):
        cv.atlas(network(seed=1), "conv2", whole.store.out, **OPTIONS)
    with pytest.raises(InputError, match=r"another job: its config\.seed"):
        cv.atlas(network(seed=1), "conv2", whole.store.out, **{**OPTIONS, "seed": 9})


def test_an_atlas_shows_as_folder_layers_and_counts(whole, tmp_path):
    again = cv.atlas(network(), "conv2", whole.store.out, **OPTIONS)
    counts = Counter(record["status"] for record in again.scores)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    assert sum(counts.values()) == 5
    assert repr(again) == f"Atlas({str(whole.store.out)!r}: 2; {told})"
    shutil.copytree(whole.store.out, tmp_path / "job")
    lost = dataclasses.replace(
        again, store=Store(tmp_path / "job", json.loads((tmp_path / "job" / "job.json").read_text()))
    )
    (tmp_path / "job" / "scores.csv").unlink()
    assert repr(lost).endswith(": 2; no tiles)")


def test_another_number_of_threads_is_told_with_the_folders_own(whole):
    threads = json.loads((whole.store.out / "job.json").read_text())["config"]["threads"]
    with pytest.raises(InputError, match=rf"resume with threads={threads} of atlas \(--threads {threads}\)"):
        cv.atlas(network(), "conv2", whole.store.out, threads=threads + 1, **OPTIONS)
    assert cv.atlas(network(), "conv2", whole.store.out, threads=threads, **OPTIONS).made == 0


def test_a_lost_or_damaged_alpha_map_is_made_again(texturenet_alpha_job):
    out, made = texturenet_alpha_job
    before = {path.name: path.read_bytes() for path in (out / "features.0").iterdir()}
    (out / "features.0" / "0000.alpha.png").unlink()
    (out / "features.0" / "0001.alpha.png").write_bytes(before["0001.alpha.png"][:50])
    assert made().made == 2
    assert {path.name: path.read_bytes() for path in (out / "features.0").iterdir()} == before
    assert made().made == 0


@pytest.fixture
def texturenet_alpha_job(tmp_path):
    def made():
        options = {"steps": 2, "size": 32, "alpha": True, "progress": False}
        return cv.atlas("texturenet", "conv1", tmp_path / "job", filters="0-2", **options)

    assert made().made == 3
    return tmp_path / "job", made
