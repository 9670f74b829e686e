"""Ray's workers make the files that one process makes, whatever becomes of them."""

import contextlib
import importlib.util
import json
import os
import signal
import threading
import time

import pytest
from support.forks import FILTERS, contents, network, quick, tiles

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")
TOTAL = sum(FILTERS.values())


def job(out, **more):
    return cv.atlas(network(), "all", out, **{**quick(), **more})


def descendants(name):
    """Processes below this one whose command starts with a name, the youngest last."""
    parents, found = {}, []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline") as command:
                after = stat.read().rpartition(")")[2].split()
                parents[int(entry)] = int(after[1])
                if command.read().startswith(name):
                    found.append((int(after[19]), int(entry)))
        except (FileNotFoundError, ProcessLookupError):
            continue

    def ours(process):
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return [process for _, process in sorted(found) if ours(process)]


@needs_ray
def test_workers_make_the_same_bytes_as_one_process(tmp_path):
    job(tmp_path / "local")
    made = job(tmp_path / "ray", engine="ray", workers=2)
    assert made.made == TOTAL
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    # What one engine began the other goes on with.
    for path in list((tmp_path / "ray").glob("2/000*.png")):
        path.unlink()
    assert job(tmp_path / "ray").made == 10
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    # What is wrong is told as it is without Ray, and nothing is left running.
    options = {**quick(), "objective": "neuron", "position": (99, 0)}
    with pytest.raises(InputError, match=r"^`position` must lie in the 32 x 32 output"):
        cv.atlas(network(), "conv2", tmp_path / "wrong", engine="ray", workers=1, **options)
    assert not (tmp_path / "wrong").exists()
    deadline = time.monotonic() + 30
    while descendants("ray::") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descendants("ray::") == []


@pytest.mark.parametrize(
    "options, word",
    [
        ({"engine": "rey"}, "`engine`"),
        ({"workers": 2}, "`workers`"),
        ({"engine": "ray", "workers": 0}, "`workers`"),
        ({"threads": 0}, "`threads`"),
        ({"threads": True}, "`threads`"),
    ],
)
def test_a_wrong_engine_is_refused(options, word, tmp_path):
    with pytest.raises(InputError, match=word):
        job(tmp_path / "job", **{**options})
    assert not (tmp_path / "job").exists()


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'cnnvis_fast\[ray\]'"):
        job(tmp_path, engine="ray")


def test_threads_are_part_of_the_job(tmp_path):
    job(tmp_path, filters=[0])
    assert json.loads((tmp_path / "job.json").read_text())["config"]["threads"] == 1
    with pytest.raises(InputError, match=r"its config\.threads is 1, yours is 2"):
        job(tmp_path, filters=[0], threads=2)


# Losses


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Options of a job four times as long as Ray takes to start, its undisturbed files, its seconds."""
    out = tmp_path_factory.mktemp("long")
    began = time.monotonic()
    job(out / "ray", filters=[0], engine="ray", workers=1)
    started = time.monotonic()
    job(out / "local", steps=100)
    steps = int(8 * (started - began) / (time.monotonic() - started) * 100)
    began = time.monotonic()
    job(out / "undisturbed", steps=steps)
    return {"steps": steps}, contents(out / "undisturbed"), time.monotonic() - began


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_ten_times_costs_no_tile(long, tmp_path):
    options, expected, seconds = long
    killed, there, over = [], [], threading.Event()

    def kill():
        # The other worker stands still meanwhile: the job cannot end before the last kill, however slowly
        # Ray starts. Every third worker makes a unit first, since one lost five times is given up.
        other = None
        while len(killed) < 10 and not over.is_set():
            workers = descendants("ray::_RemoteTileMaker")
            if len(workers) == 2 and workers[-1] not in killed:
                if other is None:
                    other = workers[0]
                    os.kill(other, signal.SIGSTOP)
                before = tiles(tmp_path)
                if len(killed) % 3 == 1:  # while it works; the first of three while it starts
                    time.sleep(seconds / 48)
                while len(killed) % 3 == 2 and tiles(tmp_path) == before and not over.is_set():
                    time.sleep(0.02)
                with contextlib.suppress(ProcessLookupError):  # it ended by itself: no kill
                    os.kill(workers[-1], signal.SIGKILL)
                    killed.append(workers[-1])
                    there.append(tiles(tmp_path))
            time.sleep(0.02)
        if other is not None:
            os.kill(other, signal.SIGCONT)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        made = job(tmp_path, engine="ray", workers=2, **options)
    finally:
        over.set()
        killer.join()
    print(f"killed at {there} of {TOTAL} tiles")
    assert len(killed) == 10
    assert made.made == TOTAL  # each once
    assert there[-1] < TOTAL
    assert contents(tmp_path) == expected


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_loses_a_node_finishes_the_job(long, tmp_path):
    from ray.cluster_utils import Cluster

    options, expected, _ = long
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        lost = []

        def lose():
            while tiles(tmp_path) < 8:
                time.sleep(0.05)
            lost.append(tiles(tmp_path))
            cluster.remove_node(second, allow_graceful=False)

        thief = threading.Thread(target=lose)
        thief.start()
        made = job(tmp_path, engine="ray", address=cluster.address, **options)
        thief.join()
    finally:
        cluster.shutdown()
    print(f"node lost at {lost[0]} of {TOTAL} tiles")
    assert lost[0] < TOTAL
    assert made.made == TOTAL
    assert contents(tmp_path) == expected
    hosts = [json.loads(line)["batch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(hosts) == TOTAL // 2
