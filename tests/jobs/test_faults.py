"""What stops a job in its course: no memory, numbers that are none, signals, a full disk."""

import contextlib
import copy
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.forks import FILTERS, contents, network, quick, tiles
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.ascent.recovery import out_of_memory
from cnnvis_fast.errors import InputError
from cnnvis_fast.kernels import ops
from cnnvis_fast.progress import progress_bar
from cnnvis_fast.storage import files
from cnnvis_fast.storage.job_folder import Store
from cnnvis_fast.storage.tiles import read_tile

pytestmark = pytest.mark.usefixtures("one_thread")
TOTAL = sum(FILTERS.values())
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    "kernel": MemoryError("std::bad_alloc"),
}


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# Memory


@contextlib.contextmanager
def memory_for(pictures, step, error, monkeypatch):
    """From a step on, gradients of more pictures than these find no memory; told is how many were tried.

    Step 0 is the gradient before the first step, which finds starts without any.
    """
    tried, calls = [], {"count": -1}
    backward = ops.render_backward

    def limited(g, *arguments):
        if not calls["broken"]:
            calls["count"] += 1
            calls["broken"] = calls["count"] == step
        tried.append(len(g))
        if calls["broken"] and len(g) > pictures:
            raise error
        return backward(g, *arguments)

    calls["broken"] = False
    with monkeypatch.context() as patch:
        patch.setattr(ops, "render_backward", limited)
        yield tried


MEMORY = {"steps": 10, "size": 32, "batch": 4, "progress": False}


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """The pictures where nothing is short."""
    out = tmp_path_factory.mktemp("enough")
    cv.atlas("texturenet", "conv3", out, filters=range(6), **MEMORY)
    return contents(out)


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("kind", ERRORS)
def test_no_memory_halves_the_batch_and_makes_the_same_pictures(kind, step, enough, tmp_path, monkeypatch):
    with (
        memory_for(2, step, ERRORS[kind], monkeypatch) as tried,
        pytest.warns(UserWarning, match="4 pictures at a time do not fit into memory: going on with 2"),
    ):
        cv.atlas("texturenet", "conv3", tmp_path, filters=range(6), **MEMORY)
    assert tried[: step + 1] == [4] * (step + 1)
    assert {*tried[step + 1 :]} == {2}
    assert contents(tmp_path) == enough
    assert [line["batch"] for line in log(tmp_path)] == [2, 2]


def test_a_quarter_is_tried_where_half_is_too_much(monkeypatch):
    options = {**MEMORY, "filters": range(6), "batch": 8}
    whole = cv.maximize("texturenet", "conv3", **options)
    with memory_for(2, 3, ERRORS["cpu"], monkeypatch), pytest.warns(UserWarning) as told:
        found = cv.maximize("texturenet", "conv3", **options)
    assert [str(warning.message).rpartition(" ")[2] for warning in told] == ["4", "2"]
    assert (whole.batch, found.batch) == (8, 2)
    assert torch.equal(found.pixels, whole.pixels)


@pytest.mark.parametrize("batch, way", [(1, "a smaller size"), (2, "batch=1"), (3, "batch=1")])
def test_no_memory_for_two_pictures_is_refused(batch, way, monkeypatch):
    # One at a time would be other bits under the same name.
    with (
        memory_for(0, 2, ERRORS["cuda"], monkeypatch),
        pytest.raises(InputError, match=f"{batch} pictures of 32 pixels do not fit .*: pass {way}"),
    ):
        cv.maximize("texturenet", "conv3", [0], **{**MEMORY, "batch": batch})


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    assert all(map(out_of_memory, ERRORS.values()))
    with (
        memory_for(0, 1, RuntimeError("sizes do not match"), monkeypatch),
        pytest.raises(RuntimeError, match="sizes do not match"),
    ):
        cv.maximize("texturenet", "conv3", [0], **MEMORY)


# Numbers that are none


class Narrow(nn.Module):
    """Overflows where numbers have bfloat16's or float16's few digits: 257 is 256 there."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        return y / (torch.full_like(y, 257) - 256)


def test_what_is_not_finite_is_made_again_in_float32(tmp_path):
    torch.manual_seed(0)
    net = Narrow().eval()
    options = {**quick(), "steps": 6}
    del options["threads"]
    expected = cv.maximize(net, "logits", **{**options, "dtype": "float32"})
    assert expected.status == ["ok"] * 4
    found = cv.maximize(net, "logits", **{**options, "dtype": "bfloat16"})
    assert torch.equal(found.pixels, expected.pixels)
    assert torch.equal(found.scores, expected.scores)
    assert found.status == ["ok"] * 4
    assert found.dtype == ["float32"] * 4
    assert [row["dtype"] for row in found.records()] == ["float32"] * 4
    assert all("dtype" not in row for row in expected.records())
    found.save(tmp_path)
    assert {row["dtype"] for row in Store(tmp_path, found.job).records("logits")} == {"float32"}


def test_what_is_not_finite_in_float32_either_is_marked_and_disturbs_nobody(tmp_path):
    net = copy.deepcopy(network())
    with torch.no_grad():
        net[2].weight[1] = float("nan")
    options = {**quick(), "dtype": "bfloat16", "filters": range(4)}
    made = cv.atlas(net, "conv2", tmp_path / "broken", **options)
    assert [row["status"] == "nonfinite" for row in made.scores] == [False, True, False, False]
    assert [row.get("dtype") for row in made.scores] == [None, "float32", None, None]
    sound = cv.atlas(network(), "conv2", tmp_path / "sound", **options)
    for channel in (0, 2, 3):
        pictures = [next((a.store.out / "2").glob(f"{channel:04d}.png")) for a in (made, sound)]
        first, second = (read_tile(path)[0].tobytes() for path in pictures)
        assert first == second


# A full disk


def job(out, **more):
    return cv.atlas(network(), "all", out, **{**quick(), **more})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    job(out)
    return contents(out)


def test_what_has_no_room_is_not_started(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=60_000))
    with pytest.raises(InputError, match=r"28 pictures need up to \d\.\d MB in .*, and 0\.1 MB are free"):
        job(tmp_path / "job")
    assert not (tmp_path / "job").exists()
    # What is finished needs no room.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    job(tmp_path / "job")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=60_000))
    assert job(tmp_path / "job").made == 0


def test_the_prediction_is_an_upper_bound_and_not_far_off(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "cnnvis_fast.storage.job_folder.check_room", lambda _, needed, *__: told.append(needed)
    )
    options = {**MEMORY, "steps": 3, "size": 96, "filters": range(12)}
    cv.atlas("texturenet", "conv5", tmp_path, **options)
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert used < told[0] < 6 * used


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("tile", [0, 5, 20])
def test_a_disk_that_fails_stops_the_job_and_says_what_is_missing(
    code, tile, undisturbed, tmp_path, monkeypatch
):
    written, write = [], files.write_whole

    def failing(path, content):
        if path.name[:4].isdecimal():
            written.append(path)
        if len(written) > tile:
            raise OSError(code, os.strerror(code))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("cnnvis_fast.storage.job_folder.write_whole", failing)
        with pytest.raises(InputError) as caught:
            job(tmp_path / "job")
    missing = TOTAL - tile // 2 * 2  # a batch counts when it is whole
    assert f"({os.strerror(code)}): make room" in str(caught.value)
    assert f"; {missing} of {TOTAL} pictures are missing: run the same call again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tiles(tmp_path / "job") == tile
    assert not list(tmp_path.rglob(".*"))
    shutil.copytree(tmp_path / "job", tmp_path / "larger")
    assert job(tmp_path / "larger").made == TOTAL - tile
    assert contents(tmp_path / "larger") == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_of_5_megabytes_stops_cleanly_and_a_copy_on_a_larger_one_goes_on(
    small_disk, undisturbed, tmp_path, monkeypatch
):
    # Somebody else's file comes after the start, when there still seemed to be room enough.
    made, keep = [], Store.keep

    def crowded(self, layer, name, content):
        if len(made) == 9:
            with contextlib.suppress(OSError), open(small_disk / "other", "wb") as file:
                file.write(bytes(5_000_000))
                file.flush()
            with contextlib.suppress(OSError), open(small_disk / "another", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        made.append(name)
        keep(self, layer, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep", crowded)
        with pytest.raises(InputError, match=r"No space left on device.*20 of 28 pictures are missing"):
            job(small_disk / "job")
    assert tiles(small_disk / "job") == 9
    assert not list((small_disk / "job").rglob(".*"))
    shutil.copytree(small_disk / "job", tmp_path / "larger")
    assert job(tmp_path / "larger").made == TOTAL - 9
    assert contents(tmp_path / "larger") == undisturbed
    with pytest.raises(InputError, match=r"28 pictures need up to .* MB in .*, and .* are free"):
        job(small_disk / "new")


def test_a_job_that_is_too_large_for_a_disk_of_5_megabytes_is_not_started(small_disk):
    with pytest.raises(InputError, match=r"96 pictures need up to \d+\.\d MB in .*, and 5\.2 MB are free"):
        cv.atlas("texturenet", "conv5", small_disk / "job", steps=1, progress=False)
    assert not list(small_disk.iterdir())


# Signals


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_tiles_and_prints_the_command_that_goes_on(number, code, tmp_path):
    out = tmp_path / "a job's folder"
    command = [sys.executable, "-m", "cnnvis_fast", "atlas", "--layer", "conv5", "--out", str(out)]
    command += ["--batch", "1", "--steps", "48", "--size", "32", "--filters", "0-40", "--threads", "1"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not tiles(out) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert "Traceback" not in error
    word, _, resume = error.splitlines()[-1].partition("; finished tiles are kept, resume with: ")
    assert word == f"cnnvis-fast: {'terminated' if code == 143 else 'interrupted'}"
    assert shlex.split(resume) == ["cnnvis-fast", *command[3:]]
    kept = tiles(out)
    assert 0 < kept < 41
    assert len((out / "scores.csv").read_text().splitlines()) == kept + 1
    assert not list(out.rglob(".*"))
    again = cv.atlas(
        "texturenet", "conv5", out, filters="0-40", batch=1, steps=48, size=32, threads=1, progress=False
    )
    assert again.made == 41 - kept


# Progress


def test_progress_and_the_time_to_come_survive_a_resume(tmp_path, capsys):
    job(tmp_path, filters=range(8))
    pace = Store(tmp_path, json.loads((tmp_path / "job.json").read_text())).pace(["0", "2"])
    seconds = [line["seconds"] for line in log(tmp_path)]
    assert pace == pytest.approx(sum(seconds) / 16)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"layer": "0", "seco')  # killed while it wrote
    capsys.readouterr()
    job(tmp_path, progress=True)
    shown = [line for line in capsys.readouterr().err.split("\r") if "%" in line]
    assert "57%" in shown[0]
    assert "16/28" in shown[0]
    assert "?" not in shown[1]  # the pace is known before anything is made
    assert sum(len(line["filters"]) for line in log_lines(tmp_path)) == TOTAL


def log_lines(out):
    for line in (out / "log.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def test_the_bar_tells_the_time_to_come_from_the_pace_before(capsys):
    with progress_bar(100, "conv", True, done=50, pace=60.0):
        pass
    assert "50/100 [50:00<50:00," in capsys.readouterr().err
