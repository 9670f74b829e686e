"""A write that fails midway leaves the previous file, never half of a new one."""

import errno
import os
from pathlib import Path

import pytest
from support.job_folders import JOB, contents, made, pixels, put

from cnnvis_fast.errors import InputError


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
