"""An interrupted atlas resumes, and its files are byte-for-byte the same."""

import csv

import pytest
from support.jobs import LAST, PLAIN, contents, small

import cnnvis_fast as cv
from cnnvis_fast.ascent.loop import Ascent

pytestmark = pytest.mark.usefixtures("same_random_networks")


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
