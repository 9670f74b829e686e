"""Tiles are read back as written, and damaged or foreign ones do not count as finished."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.job_folders import JOB, made, pixels, put, record, rows

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
