"""Computes the numbers of docs/scale.md: the cost of a driver, and how busy it keeps a fleet.

python -m bench.scale            measures the driver on this machine, then simulates
python -m bench.scale --simulate runs the simulation only, which is the same everywhere
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from cnnvis_fast.storage.job_folder import Store
from cnnvis_fast.storage.tiles import Parcel, tile_name

WORKERS, UNITS = 1000, 200_000
HOURS_BETWEEN_FAILURES = 100.0  # for one GPU and its share of a machine
RESTART = 60.0  # seconds until a lost worker is replaced and ready


def driver() -> dict[str, float]:
    """Returns the milliseconds per tile (224 pixels, noise-like) of the driver and of a worker."""
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(3, 56, 56)).repeat(4, 1).repeat(4, 2) * 40 + 128
    picture = np.clip(smooth + rng.normal(size=(3, 224, 224)) * 6, 0, 255).astype(np.uint8)
    record = {"layer": "conv", "filter": 0, "status": "ok", "config": {f"option{n}": n for n in range(40)}}
    job = {"model": "net", "mean": [0.5] * 3, "config": {"size": 224}}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "job", job).writing() as store:
        packing, writing, size = [], [], 0
        for channel in range(100):
            parcel = Parcel(store.digest, "conv")
            began = time.perf_counter()
            parcel.write("conv", channel, picture, {**record, "filter": channel})
            packed = time.perf_counter()
            store.unpack(parcel)
            store.log({"layer": "conv", "filters": [channel], "seconds": 1.0})
            writing.append(time.perf_counter() - packed)
            packing.append(packed - began)
            size = len(parcel.files[0][1])
        assert parcel.files[0][0] == tile_name(channel)
    return {
        "tile_kB": round(size / 1000, 1),
        "worker_ms_per_tile": round(1000 * statistics.median(packing), 2),
        "driver_ms_per_tile": round(1000 * statistics.median(writing), 2),
    }


def simulate(seconds: float, driver_ms: float, halving: bool, seed: int = 0) -> dict[str, float]:
    """Simulates a fleet that processes a queue of units of work.

    Args:
        seconds: time that a unit takes an ordinary worker; the same work is cut into more or fewer units.
        driver_ms: time that the driver spends on each unit, one after the other.
        halving: whether units get shorter towards the end, as in `ray_engine`.
        seed: seed of the speeds and failures.

    Returns:
        The share of the fleet's time that made kept pictures, the shares of waiting for the driver, lost
        units and idling at the end of the job, and the hours.
    """
    chance = random.Random(seed)
    work = float(UNITS * 5.0)  # seconds of an ordinary worker, for any size of the units
    speed = [chance.lognormvariate(0, 0.1) * (0.3 if chance.random() < 0.01 else 1) for _ in range(WORKERS)]
    failure = [chance.expovariate(1 / (HOURS_BETWEEN_FAILURES * 3600)) for _ in range(WORKERS)]
    free = [(0.0, worker) for worker in range(WORKERS)]
    left, now_driver, lost, waited, useful, end = work, 0.0, 0.0, 0.0, 0.0, 0.0
    ends = [0.0] * WORKERS
    while left > 1e-9 and free:
        now, worker = heapq.heappop(free)
        unit = min(seconds, left)
        if halving:
            unit = min(unit, max(seconds / 50, left / (2 * WORKERS)))
        start = max(now, now_driver)  # the driver hands out units one after the other
        now_driver = start + driver_ms / 1000
        waited += start - now
        takes = unit / speed[worker]
        if start + takes > failure[worker]:
            lost += max(0.0, failure[worker] - start)
            failure[worker] = start + RESTART + chance.expovariate(1 / (HOURS_BETWEEN_FAILURES * 3600))
            heapq.heappush(free, (start + RESTART, worker))
            continue  # the unit is handed out again
        left -= unit
        useful += takes
        ends[worker] = start + takes
        end = max(end, ends[worker])
        heapq.heappush(free, (ends[worker], worker))
    idle = sum(end - value for value in ends)
    total = end * WORKERS
    return {
        "unit_s": seconds,
        "driver_ms_per_unit": driver_ms,
        "busy": round(useful / total, 4),
        "waiting_for_driver": round(waited / total, 4),
        "lost": round(lost / total, 6),
        "idle_at_the_end": round(idle / total, 4),
        "hours": round(end / 3600, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulate", action="store_true", help="run the simulation only")
    if not parser.parse_args().simulate:
        print(json.dumps(driver()))
    for seconds in (0.5, 1.0, 5.0, 20.0, 60.0, 300.0):
        for halving in (False, True):
            print(json.dumps({"halving": halving, **simulate(seconds, 2.0, halving)}))
    for milliseconds in (0.5, 1.0, 5.0, 20.0, 100.0):
        print(json.dumps({"halving": True, **simulate(5.0, milliseconds, True)}))


if __name__ == "__main__":
    main()
