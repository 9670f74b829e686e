"""Jobs that are killed at any instant end, after a restart, with the files of an undisturbed run."""

import os
import random
import re
import shutil
import signal
import time

import pytest
from support.forks import FILTERS, contents, tiles, warm_parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills POSIX processes")
TOTAL = sum(FILTERS.values())
JOB = {"model": "net", "mean": [0.5], "config": {"size": 32}}


@pytest.fixture(scope="module")
def parent():
    with warm_parent() as warm:
        yield warm


@pytest.fixture(scope="module")
def undisturbed(parent, tmp_path_factory):
    """An undisturbed job's files, and the seconds from its first file to its last."""
    out = tmp_path_factory.mktemp("undisturbed")
    parent.run("job", str(out / "warm-up"))
    seconds = []
    for name in ("first", "second"):
        parent.start("job", str(out / name))
        until(out / name, 0)
        began = time.monotonic()
        assert parent.wait() == 0
        seconds.append(time.monotonic() - began)
    expected = contents(out / "first")
    assert contents(out / "second") == expected
    assert len(expected) == TOTAL + 5  # two sheets, the table, the job, the order of layers
    return expected, min(seconds)


def until(out, count):
    """Waits until a job has made its first file and then so many tiles."""
    deadline = time.monotonic() + 300
    while not (out / ".lock").exists() or tiles(out) < count:
        assert time.monotonic() < deadline, "the job does not get there"
        time.sleep(0.0005)


def kill_and_resume(parent, out, chance, seconds, expected):
    """Kills a job at a random instant, resumes it, compares; tiles that were there.

    The instant is a random time after a random tile: a time alone would miss the job on a machine that is
    slower at one time than at another.
    """
    child = parent.start("job", str(out))
    until(out, chance.randrange(TOTAL))
    time.sleep(chance.uniform(0, 2 * seconds / TOTAL))
    os.kill(child, signal.SIGKILL)
    code = parent.wait()
    assert code in (0, -signal.SIGKILL)
    kept = contents(out)
    there = [name for name in kept if re.fullmatch(r"\d/\d{4}\.png", name)]
    assert all(kept[name] == expected[name] for name in there)  # never half of a tile under its name
    parent.run("job", str(out))
    assert contents(out) == expected
    shutil.rmtree(out)
    return len(there), code != 0


def kills(parent, undisturbed, tmp_path, count, seed):
    expected, seconds = undisturbed
    chance, found = random.Random(seed), []
    while len(found) < count:
        there, killed = kill_and_resume(parent, tmp_path / "job", chance, seconds, expected)
        if killed:  # else it was done before
            found.append(there)
    return found


def test_killed_jobs_end_as_undisturbed_ones(parent, undisturbed, tmp_path):
    found = kills(parent, undisturbed, tmp_path, 5, seed=1)
    assert any(0 < there < TOTAL for there in found)


@pytest.mark.slow
def test_a_hundred_killed_jobs_end_as_undisturbed_ones(parent, undisturbed, tmp_path):
    found = kills(parent, undisturbed, tmp_path, 100, seed=2)
    partly = sum(0 < there < TOTAL for there in found)
    print(f"100 kills: {partly} with some tiles done and some not; tiles there: {sorted(found)}")
    assert partly >= 60


def test_a_job_killed_again_and_again_ends_as_an_undisturbed_one(parent, undisturbed, tmp_path):
    expected, _ = undisturbed
    there = []
    for count in range(1, TOTAL, 6):
        child = parent.start("job", str(tmp_path / "job"))
        until(tmp_path / "job", count)
        os.kill(child, signal.SIGKILL)
        parent.wait()
        there.append(tiles(tmp_path / "job"))
    assert there == sorted(there)  # nothing that was there is lost
    parent.run("job", str(tmp_path / "job"))
    assert contents(tmp_path / "job") == expected
