"""Runs all GPU benchmarks from a source checkout, in under eight minutes.

    python -m bench.gpu              on the current CUDA device
    python -m bench.gpu --dry-run    the same code at a small scale, on the CPU

The parts: kernels against float64, the race, the step's variants, the roofline, kernels against copy
bandwidth, and every convolution of VGG16 with 128 steps, cold and warm. Each part has a time budget and
reports what it left out. Prints tables; writes results/gpu.json after every part, and docs/gpu.png with
docs/gpu-roofline.png. Exits with code 1 if a part failed, 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

from bench.support.checkout import make_importable

SECONDS = 460.0  # of the eight minutes; the rest is for imports and the chart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="run at a small scale, on the CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit for all parts")
    parser.add_argument("--out", type=Path, help="folder to write to (default: results and docs)")
    asked = parser.parse_args()
    began, environment = time.monotonic(), make_importable()
    import torch

    from bench.support import gpu_parts, measure

    if not asked.dry_run and not torch.cuda.is_available():
        print(
            "bench.gpu needs a CUDA device, and torch sees none: use --dry-run to run on the CPU.",
            file=sys.stderr,
        )
        sys.exit(2)
    scale = gpu_parts.SMALL if asked.dry_run else gpu_parts.FULL
    out = asked.out or (Path("out/gpu") if asked.dry_run else None)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        measure.RESULTS = out
    report: dict[str, object] = {"dry_run": asked.dry_run, **measure.environment(scale.device)}
    failed = False
    for name, share, part in gpu_parts.PARTS:
        left = asked.seconds - (time.monotonic() - began)
        print(f"\n== {name} ({left:.0f} s left)", flush=True)
        if left < 0.1 * share * asked.seconds:
            report[name] = {"left_out": "no time left"}
            print("left out: no time left")
            continue
        deadline = time.monotonic() + min(left, share * asked.seconds)
        started = time.monotonic()
        try:
            found = part(scale, deadline, environment)
        except Exception as error:  # the later parts still run
            traceback.print_exc()
            found, failed = {"failed": f"{type(error).__name__}: {error}"}, True
        failed |= bool(found.get("wrong"))
        report[name] = {"seconds": round(time.monotonic() - started, 1), **found}
        (measure.RESULTS / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    gpu_parts.chart((out or gpu_parts.DOCS) / "gpu.png", report, scale.device)
    print(f"\n{time.monotonic() - began:.0f} s; {measure.RESULTS / 'gpu.json'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
