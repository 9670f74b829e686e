"""A job's folder holds whole files of one job, or nothing; whatever is damaged or foreign is made anew."""

import csv
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.storage.job_folder import COLUMNS, Store

JOB = {"model": "net", "mean": [0.5], "config": {"steps": 8, "size": 32, "position": [1, 2]}}
HOSTILE = [
    "../x",
    "a/b",
    "..",
    ".",
    "...",
    "/etc/x",
    "a\\b",
    "a b",
    "..\\x",
    "~",
    "-",
    "é",
    "a\nb",
    "a/../b",
    "a_b",
]
OPTIONS = {"steps": 2, "size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "progress": False}


def pixels(seed=0, channels=3, side=16):
    return np.random.default_rng(seed).integers(0, 256, (channels, side, side), dtype=np.uint8)


def record(layer="conv", channel=0, status="ok", **more):
    return {"model": "net", "layer": layer, "filter": channel, "status": status, "score": 1.5, **more}


def put(store, layer="conv", channel=0, picture=None, **more):
    picture = pixels(channel) if picture is None else picture
    store.write(layer, channel, picture, record(layer, channel, **more))
    return store.folder(layer) / f"{channel:04d}.png"


def rows(store):
    with (store.out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def contents(folder, *patterns):
    paths = [path for pattern in patterns or ("*",) for path in folder.rglob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def network(seed=0):
    """Two layers, so small that a picture takes milliseconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)).eval()


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "job", JOB).writing() as store:
        yield store


def made(*arguments):
    """A folder with a job in it that nobody writes to any more."""
    with Store(*arguments).writing() as store:
        return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed job."""
    return cv.atlas(network(), "all", tmp_path_factory.mktemp("whole"), **OPTIONS)


# Tiles


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tile_comes_back_with_its_record(channels, store):
    picture = pixels(1, channels)
    path = put(store, channel=7, picture=picture, steps=8)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image).reshape(16, 16, channels).transpose(2, 0, 1), picture)
        stored = json.loads(image.text["cnnvis_fast"])
    assert stored.pop("job") == store.digest
    assert stored == record(channel=7, steps=8)
    assert store.finished("conv") == {7}
    assert store.records("conv") == [{"job": store.digest, **stored}]


def test_the_same_tile_has_the_same_bytes(store, tmp_path):
    again = made(tmp_path / "again", json.loads(json.dumps(JOB)))
    assert put(store).read_bytes() == put(again).read_bytes()


def test_numbers_have_four_digits_or_more(store):
    names = [put(store, channel=channel).name for channel in (0, 42, 12345)]
    assert names == ["0000.png", "0042.png", "12345.png"]
    assert store.finished("conv") == {0, 42, 12345}


class Interruptions:
    """Ways in which a write ends before its time."""

    @staticmethod
    def disk_full(monkeypatch):
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @staticmethod
    def rename_fails(monkeypatch):
        def replace(*_, **__):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "replace", replace)
        return monkeypatch.undo

    @staticmethod
    def key_pressed(monkeypatch):
        def replace(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", replace)
        return monkeypatch.undo


@pytest.mark.parametrize("way", ["disk_full", "rename_fails", "key_pressed"])
@pytest.mark.parametrize("target", ["tile", "sheet", "table", "job"])
def test_a_write_that_fails_midway_leaves_what_was_there(way, target, store, monkeypatch):
    put(store, channel=1)
    store.write_sheet("conv")
    store.write_table()
    other = store.out.parent / "other"
    before = contents(store.out)
    for channel in range(2, 12):
        put(store, channel=channel)  # the sheet and the table have something new to tell
    added = {name for name in contents(store.out) if name not in before}
    act = {
        "tile": lambda: put(store, channel=1, picture=pixels(99, side=32)),
        "sheet": lambda: store.write_sheet("conv"),
        "table": store.write_table,
        "job": lambda: made(other, JOB),
    }[target]
    restore = getattr(Interruptions, way)(monkeypatch)
    expected = KeyboardInterrupt if way == "key_pressed" else InputError
    try:
        with pytest.raises(expected) as caught:
            act()
    finally:
        restore()
    after = contents(store.out)
    assert {name: content for name, content in after.items() if name not in added} == before
    assert contents(other) == {}
    if expected is InputError:
        assert "\n" not in str(caught.value)
        assert str(other if target == "job" else store.out) in str(caught.value)


def test_a_tile_is_never_seen_half_written(store, monkeypatch):
    path = put(store, channel=1)
    old, seen, replace = path.read_bytes(), [], os.replace

    def watch(source, target, **options):
        seen.append((Path(target), path.read_bytes(), Path(source).parent))
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", watch)
    put(store, channel=1, picture=pixels(99))
    # Renaming is atomic within one file system only, so the temporary file lies in the tile's own folder.
    assert seen == [(path, old, path.parent)]
    assert path.read_bytes() != old


# What counts as finished


def test_a_tile_cut_anywhere_is_not_finished(store):
    path = put(store, channel=3, picture=pixels(side=8))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert store.finished("conv") == set(), length
    path.write_bytes(content)
    assert store.finished("conv") == {3}


def test_a_tile_with_one_wrong_byte_is_not_finished(store):
    path = put(store, channel=3, picture=pixels(side=8))
    content = path.read_bytes()
    for position in range(len(content)):
        bent = bytearray(content)
        bent[position] ^= 0x55
        path.write_bytes(bytes(bent))
        assert store.finished("conv") == set(), position


def test_other_files_are_no_tiles(store):
    tile = put(store, channel=3).read_bytes()
    folder = store.folder("conv")
    for name in ("sheet.png", "12.png", "0001.png.bak", "x0001.png", "0004.jpg", "0005.png.1.tmp"):
        (folder / name).write_bytes(tile)
    (folder / "0006.png").mkdir()
    (folder / "0007.png").write_text("not a picture")
    Image.fromarray(pixels().transpose(1, 2, 0)).save(folder / "0008.png")
    assert store.finished("conv") == {3}


def test_a_tile_of_another_job_counts_nowhere(store, tmp_path):
    foreign = put(made(tmp_path / "foreign", {**JOB, "model": "other"}), channel=4)
    put(store, channel=3)
    shutil.copy(foreign, store.folder("conv"))
    store.write_table()
    assert store.finished("conv") == {3}
    assert [found["filter"] for found in store.records("conv")] == [3]
    assert [row["filter"] for row in rows(store)] == ["3"]
    assert store.sheet("conv").size == lone_sheet(tmp_path).size


def lone_sheet(tmp_path):
    lone = made(tmp_path / "lone", JOB)
    put(lone, channel=3)
    return lone.sheet("conv")


def test_a_tile_under_another_number_or_in_another_folder_is_not_finished(store):
    path = put(store, channel=3)
    shutil.copy(path, path.with_name("0005.png"))
    put(store, layer="later", channel=0)
    shutil.copy(path, store.folder("later"))
    assert store.finished("conv") == {3}
    assert store.finished("later") == {0}


def test_a_layer_without_tiles_has_none_finished(store):
    assert store.finished("conv") == set()
    assert store.records("conv") == []


# One job per folder


def test_the_same_job_is_taken_up_again(store):
    put(store)
    assert Store(store.out, json.loads(json.dumps(JOB))).finished("conv") == {0}


def test_the_order_of_keys_makes_no_other_job(store):
    assert Store(store.out, dict(reversed(JOB.items()))).digest == store.digest


def test_tuples_and_lists_are_one_job(store):
    config = {**JOB["config"], "position": (1, 2)}
    assert Store(store.out, {**JOB, "mean": (0.5,), "config": config}).digest == store.digest


@pytest.mark.parametrize(
    "change, name, was, now",
    [
        ({"model": "other"}, "model", "'net'", "'other'"),
        ({"mean": [0.25]}, "mean", "[0.5]", "[0.25]"),
        ({"config": {**JOB["config"], "steps": 9}}, "config.steps", "8", "9"),
        ({"config": {"steps": 8, "position": [1, 2]}}, "config.size", "32", "None"),
        ({"seed": 3}, "seed", "None", "3"),
    ],
    ids=["value", "list", "nested", "removed", "added"],
)
def test_another_jobs_folder_is_refused_and_the_difference_named(change, name, was, now, store):
    put(store)
    before = contents(store.out)
    with pytest.raises(InputError) as caught:
        Store(store.out, {**JOB, **change})
    assert f"its {name} is {was}, yours is {now}" in str(caught.value)
    assert str(store.out) in str(caught.value)
    assert contents(store.out) == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"model": "ne', b"\xff\xfe{}", b"[]", b"null", b"5"], ids=repr
)
def test_a_damaged_job_file_is_refused(content, store):
    put(store)
    (store.out / "job.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Store(store.out, JOB)
    assert str(store.out) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (store.out / "job.json").read_bytes() == content


def test_a_folder_with_files_of_others_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    put(made(tmp_path, JOB))
    assert (tmp_path / "notes.txt").read_text() == "mine"


# One writer per folder


def test_a_second_writer_is_refused_and_the_first_one_named(store):
    before = contents(store.out)
    with (
        pytest.raises(InputError, match=rf"process {os.getpid()} on .* is writing to {store.out}"),
        Store(store.out, JOB).writing(),
    ):
        pass
    assert contents(store.out) == before
    assert Store(store.out, JOB).finished("conv") == set()  # reading needs no lock


def test_another_process_is_a_second_writer_too(store):
    program = "import sys, json; from cnnvis_fast.storage.job_folder import Store; "
    program += "Store(sys.argv[1], json.loads(sys.argv[2])).writing().__enter__()"
    done = subprocess.run(
        [sys.executable, "-c", program, store.out, json.dumps(JOB)], capture_output=True, text=True
    )
    assert f"InputError: process {os.getpid()} on " in done.stderr


def test_a_lock_ends_with_its_holder(tmp_path):
    with Store(tmp_path, JOB).writing():
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
    # What a killed holder leaves, and what never was a lock's.
    for left in (b"vm 4242", b"", b"\xff\x1b[31m" * 100):
        (tmp_path / ".lock").write_bytes(left)
        with Store(tmp_path, JOB).writing() as store:
            put(store)
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_says_nonsense_is_a_lock(store):
    (store.out / ".lock").write_bytes(b"\x1b[31m<b>")
    with (
        pytest.raises(InputError, match=r"^another process is writing to"),
        Store(store.out, JOB).writing(),
    ):
        pass


def test_where_the_file_system_knows_no_locks_that_is_said(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), Store(tmp_path, JOB).writing() as store:
        put(store)


def test_leftovers_of_killed_writers_are_cleared_away_and_nothing_else(tmp_path):
    with Store(tmp_path, JOB).writing() as store:
        put(store, channel=3)
    before = contents(tmp_path)
    mine = [".notes", ".x.tmp", "conv/.hidden.png", "conv/.0001.png.12.tmp.bak", "conv/deep/.0001.png.1.tmp"]
    left = [
        ".job.json.77.tmp",
        ".scores.csv.1.tmp",
        "conv/.0001.png.4242.tmp",
        "conv/.0001.alpha.png.4242.tmp",
    ]
    (tmp_path / "conv" / "deep").mkdir()
    for name in (*mine, *left):
        (tmp_path / name).write_bytes(b"x")
    with Store(tmp_path, JOB).writing():
        pass
    assert {*contents(tmp_path)} - {*before} == {*mine}


def test_a_link_planted_under_a_temporary_name_leads_nowhere(store, tmp_path):
    (tmp_path / "precious").write_text("mine")
    store.folder("conv").mkdir()
    (store.folder("conv") / f".0001.png.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    put(store, channel=1)
    assert (tmp_path / "precious").read_text() == "mine"
    assert store.finished("conv") == {1}


# Names


def test_hostile_layer_names_stay_in_the_folder(tmp_path):
    store = made(tmp_path / "deep" / "job", JOB)
    for channel, name in enumerate(HOSTILE):
        path = put(store, layer=name, channel=channel)
        assert path.resolve().parent.parent == store.out.resolve(), name
        assert store.finished(name) == {channel}, name
    outside = [path for path in tmp_path.rglob("*.png") if store.out not in path.parents]
    assert outside == []
    folders = [store.folder(name).name for name in HOSTILE]
    # Compared as a file system would that takes no notice of case.
    assert len({folder.lower() for folder in folders}) == len(HOSTILE)


@pytest.mark.parametrize("name", ["features.28", "layer4.1.conv2", "logits", "block_1.conv-2"])
def test_a_plain_layer_name_is_its_folders_name(name, store):
    assert store.folder(name) == store.out / name


def test_layers_whose_names_look_alike_keep_their_own_tiles(tmp_path):
    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("a/b", nn.Conv2d(3, 2, 3))
            self.add_module("a_b", nn.Conv2d(3, 2, 3))

        def forward(self, x):
            return self.a_b(x) + getattr(self, "a/b")(x)

    made = cv.atlas(Alike(), "all", tmp_path, **OPTIONS)
    assert made.made == 4
    assert [(row["layer"], row["filter"]) for row in made.scores] == [
        *(("a/b", 0), ("a/b", 1), ("a_b", 0), ("a_b", 1))
    ]


# Tables and sheets


def test_the_table_has_a_row_per_tile_in_order(store):
    for layer, channel in (("b", 10), ("b", 9), ("a", 2), ("b", 12345), ("a", 1)):
        put(store, layer, channel, status="dead" if channel == 9 else "ok", score_start=-0.5, steps=8)
    store.write_table()
    found = rows(store)
    assert tuple(found[0]) == COLUMNS
    assert COLUMNS[:8] == (
        *("model", "layer", "filter", "status", "score_start", "score", "robust_score", "steps"),
    )
    assert [(row["layer"], row["filter"], row["status"]) for row in found] == [
        *(("a", "1", "ok"), ("a", "2", "ok")),
        *(("b", "9", "dead"), ("b", "10", "ok"), ("b", "12345", "ok")),
    ]
    assert {(row["model"], row["score_start"], row["score"], row["steps"]) for row in found} == {
        ("net", "-0.5", "1.5", "8")
    }


def test_the_sheet_shows_every_tile(store):
    blue = np.zeros((3, 48, 48), np.uint8)
    blue[2] = 255
    for count in (1, 5):
        for channel in range(count):
            put(store, channel=channel, picture=blue)
        store.write_sheet("conv")
        with Image.open(store.folder("conv") / "sheet.png") as sheet:
            shown = np.asarray(sheet.convert("RGB"))
        assert (shown == (0, 0, 255)).all(-1).sum() == count * 48 * 48


def test_a_tile_that_is_not_ok_has_a_red_label(store):
    def reds():
        shown = np.asarray(store.sheet("conv")).astype(int)
        return int(((shown[..., 0] > 150) & (shown[..., 1:] < 100).all(-1)).sum())

    gray = np.full((3, 64, 64), 128, np.uint8)
    put(store, channel=0, picture=gray)
    assert reds() == 0
    put(store, channel=1, picture=gray, status="dead")
    assert reds() > 10


def test_the_log_has_a_line_per_entry(store):
    store.log({"seconds": 1.5})
    store.log({"seconds": 2.5})
    lines = (store.out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"seconds": 1.5}, {"seconds": 2.5}]


# Places that cannot be written


@pytest.mark.parametrize("below", ["", "x", "x/y"], ids=["the file itself", "below it", "further below"])
def test_a_path_through_a_regular_file_is_refused(below, tmp_path):
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / below
    with pytest.raises(InputError) as caught:
        made(place, JOB)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that nobody can write")
@pytest.mark.parametrize("place", ["/proc/atlas", "/proc/self/atlas", "/dev/null/atlas", "/sys/atlas"])
def test_a_place_of_the_systems_own_is_refused(place):
    with pytest.raises(InputError, match=place):
        made(place, JOB)


def test_a_folder_without_permission_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=str(tmp_path)):
            made(tmp_path / "job", JOB)
    finally:
        tmp_path.chmod(0o700)


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
