"""A job's folder has one writer at a time."""

import errno
import json
import os
import subprocess
import sys

import pytest
from support.job_folders import JOB, contents, put

from cnnvis_fast.errors import InputError
from cnnvis_fast.storage.job_folder import Store


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
