"""Measures the seconds until a job's first step: eager, compiled with cold caches, compiled with warm caches.

    python -m bench.start vgg16/features.14 squeezenet1_0/features.12.expand3x3
    python -m bench.start vgg16/features.0,features.2,features.5 --modes eager --weights vgg16.safetensors

Every job runs in its own process, from its command to its second step; layers of one job, separated by
commas, run one after the other as in an atlas. Files that the system has read stay in memory, so the first
run after a reboot takes longer. Without a file, random weights have to be drawn first, which takes 1 s for
VGG16. Rows go to results/start.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODES = ("eager", "compiled, cold", "compiled, warm")
_BEGAN = "CNNVIS_FAST_BENCH_BEGAN"


def in_this_process(case: str, weights: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a job; returns the seconds from its command to the imports, the network and each layer's steps."""
    began = float(os.environ[_BEGAN])

    def since() -> float:
        return round(time.time() - began, 3)

    from bench.support.cases import opened
    from cnnvis_fast.ascent.loop import Ascent
    from cnnvis_fast.ascent.plan import make_plan
    from cnnvis_fast.config import configure

    found: dict[str, Any] = {"imported_s": since()}
    model, layers = opened(case, weights)
    found |= {"loaded_s": since(), "layers": {}}
    for layer in layers.split(","):
        asked = since()
        ascent = Ascent(make_plan(model, layer, configure(steps=2, **options)))
        times: dict[str, float] = {"asked_s": asked, "planned_s": since()}
        ascent.run([0], lambda step, *_, times=times: times.update({f"step_{step}_s": since()}))
        found["layers"][layer] = times
    return found


def measured(
    case: str, modes: Sequence[str] = MODES, weights: str | None = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """Returns the output of each mode's process, by mode; "compiled, warm" must follow "compiled, cold"."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        for mode in modes:
            given = json.dumps({**options, "compile": mode.startswith("compiled")})
            command = [sys.executable, "-m", "bench.start", case, "--job", given]
            command += ["--weights", weights] if weights else []
            environment = {**os.environ, **caches, _BEGAN: repr(time.time())}
            root = Path(__file__).parents[1]
            done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{case}, {mode}: {done.stderr.strip()[-500:]}")
            found[mode] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="+", help="MODEL/LAYER,LAYER...")
    parser.add_argument("--modes", default=";".join(MODES), help="modes, separated by semicolons")
    parser.add_argument("--weights", help="file of weights (default: random weights)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        print(json.dumps(in_this_process(asked.cases[0], asked.weights, json.loads(asked.job))))
        return
    from bench.support.measure import append

    for case in asked.cases:
        for mode, found in measured(case, asked.modes.split(";"), asked.weights).items():
            kind = "of a file" if asked.weights else "random"
            append("start", {"case": case, "mode": mode, "weights": kind, "device": "cpu", **found})
            print(f"{case}, {mode}: imported {found['imported_s']} s, network {found['loaded_s']} s")
            for layer, times in found["layers"].items():
                print(f"  {layer:<26}", *(f"{what[:-2]} {value:.2f} s" for what, value in times.items()))


if __name__ == "__main__":
    main()
