"""Measures what a job costs beyond its bare loop, and what Ray workers gain; contenders run interleaved.

python -m bench.jobs store            an atlas with its folder, against the same batches discarded
python -m bench.jobs ray --rounds 3   2 workers of 1 thread, against 1 process of 2 threads
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cnnvis_fast as cv
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.jobs.atlas import fill
from cnnvis_fast.jobs.batches import produce
from cnnvis_fast.jobs.engines import LocalEngine
from cnnvis_fast.jobs.identity import job_identity
from cnnvis_fast.jobs.job import Job
from cnnvis_fast.jobs.tile_maker import using_threads
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.names import module_order
from cnnvis_fast.networks.preprocessing import describe
from cnnvis_fast.storage.job_folder import Store


def store(rounds: int, pictures: int, size: int, steps: int) -> dict[str, float]:
    """Returns the ratios of CPU and wall-clock seconds, with / without the folder: medians of the rounds."""
    network = load_model("texturenet")
    source, config = describe(network), configure(steps=steps, size=size)
    filters = list(range(pictures))
    cpu, wall = [], []
    job = Job(network, source, config, threads=1)
    maker = LocalEngine(job)
    with using_threads(1):
        planned = maker.plan_layer("features.14")
        plan = make_plan(network, planned.layer, config, source)
        identity = job_identity(job, plan.config)

        def bare() -> None:
            for part in produce(plan, identity, filters):
                part.records()

        def stored() -> None:
            with tempfile.TemporaryDirectory() as folder:
                kept = Store(Path(folder) / "job", planned.identity)
                fill(kept, {planned.layer: filters}, maker, False, module_order(network))

        for _ in range(rounds + 1):
            first, second = timed(bare), timed(stored)
            cpu.append(second[0] / first[0])
            wall.append(second[1] / first[1])
    return {
        "rounds": rounds,
        "cpu_ratio": round(statistics.median(cpu[1:]), 4),
        "wall_ratio": round(statistics.median(wall[1:]), 4),
    }


def timed(act: Callable[[], None]) -> tuple[float, float]:
    """Returns the CPU seconds of this process and the wall-clock seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    return time.process_time() - cpu, time.perf_counter() - wall


def ray(rounds: int, pictures: int, size: int, steps: int) -> dict[str, float]:
    """Returns the ratio of pictures per second, 2 workers / one process, each from first to last batch."""
    ratios = []
    for _ in range(rounds):
        rates = []
        for options in ({"engine": "ray", "workers": 2, "threads": 1}, {"threads": 2}):
            with tempfile.TemporaryDirectory() as folder:
                filters = range(pictures)
                kept = {"size": size, "steps": steps, "filters": filters, "progress": False}
                cv.atlas("texturenet", "conv5", folder, **kept, **options)
                lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
                made = sum(len(line["filters"]) for line in lines[2:])
                rates.append(made / sum(line["seconds"] for line in lines[2:]))
        ratios.append(rates[0] / rates[1])
    return {"rounds": rounds, "throughput_ratio": round(statistics.median(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("store", "ray"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=128)
    options = parser.parse_args()
    run = {"store": store, "ray": ray}[options.what]
    print(json.dumps(run(options.rounds, options.pictures, options.size, options.steps)))


if __name__ == "__main__":
    main()
