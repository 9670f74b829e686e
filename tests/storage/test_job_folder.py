"""A job's folder holds whole files of one job, or nothing; whatever is damaged or foreign is made anew."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from support.job_folders import JOB, OPTIONS, contents, made, put, rows
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.storage.job_folder import COLUMNS, Store

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
