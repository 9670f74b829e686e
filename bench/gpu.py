"""Runs all GPU benchmarks from a source checkout, in under seven minutes.

    python -m bench.gpu              on the current CUDA device
    python -m bench.gpu --dry-run    the same code at a small scale, on the CPU

The parts, most telling first: the same bits twice; kernels against float64; where the time of a step goes;
the step's variants; the roofline; kernels against copy bandwidth; the race; and 64 filters of every
convolution of VGG16 with 128 steps, cold and warm.

Each part runs in a process of its own, so that a device error in one does not spoil the others. It has a time
budget and reports what it left out. Prints tables; writes gpu.json after every part, and charts at the end,
all to --out. Exits with code 1 if a part failed, 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.support.checkout import ROOT, make_importable

SECONDS = 400.0  # of the seven minutes; the rest is for imports and the charts
GRACE = 40.0  # seconds beyond its budget after which a part is killed; imports are within it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="run at a small scale, on the CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit for all parts")
    parser.add_argument("--out", type=Path, help="folder to write to (default: bench/results, or out/gpu)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    environment = make_importable()
    import torch

    from bench.support import measure

    if not asked.dry_run and not torch.cuda.is_available():
        print(
            "bench.gpu needs a CUDA device, and torch sees none: use --dry-run to run on the CPU.",
            file=sys.stderr,
        )
        sys.exit(2)
    asked.out = (asked.out or (Path("out/gpu") if asked.dry_run else measure.RESULTS)).resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    measure.RESULTS = asked.out
    sys.exit(run_part(asked, environment) if asked.part else run_all(asked, environment))


def run_all(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Runs every part in a process of its own; returns the exit code."""
    from bench.support import gpu_parts

    began, failed = time.monotonic(), False
    report: dict[str, Any] = {"dry_run": asked.dry_run}
    for name, share, _ in gpu_parts.PARTS:
        left = asked.seconds - (time.monotonic() - began)
        print(f"\n== {name} ({left:.0f} s left)", flush=True)
        if left < 0.1 * share * asked.seconds:
            report[name] = {"left_out": "no time left"}
            print("left out: no time left")
            continue
        started = time.monotonic()
        found = in_a_process(name, min(left, share * asked.seconds), asked, environment)
        report |= found.pop("environment", {})
        failed |= bool(found.get("wrong") or found.get("failed"))
        report[name] = {"seconds": round(time.monotonic() - started, 1), **found}
        (asked.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    gpu_parts.chart(asked.out / "gpu.png", report, gpu_parts.chosen_scale(asked.dry_run).device)
    print(f"\n{time.monotonic() - began:.0f} s; {asked.out / 'gpu.json'}")
    return 1 if failed else 0


def in_a_process(
    name: str, seconds: float, asked: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Runs one part in a new process and returns its entries, or why there are none."""
    answer = asked.out / f"gpu-{name}.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.gpu", "--part", name, "--seconds", str(seconds)]
    command += ["--out", str(asked.out), *(["--dry-run"] if asked.dry_run else [])]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(environment))
    try:
        code: int | str = process.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = f"killed {GRACE:.0f} s after its time"
    if not answer.exists():
        print(f"{name}: no result ({code})")
        return {"failed": f"the process ended without a result: {code}"}
    found: dict[str, Any] = json.loads(answer.read_text())
    answer.unlink()
    return found


def run_part(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Runs one part in this process and writes its entries to a file for the parent."""
    from bench.support import gpu_parts, measure

    scale = gpu_parts.chosen_scale(asked.dry_run)
    part = next(part for name, _, part in gpu_parts.PARTS if name == asked.part)
    try:
        found = part(scale, time.monotonic() + asked.seconds, environment)
    except Exception as error:  # the later parts still run
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {error}"}
    found = {**found, "environment": measure.environment(scale.device)}
    (asked.out / f"gpu-{asked.part}.json").write_text(json.dumps(found))
    return 1 if found.get("wrong") or found.get("failed") else 0


if __name__ == "__main__":
    main()
