"""Processes that a test can kill: forked from a warm process, so that each starts in milliseconds.

Run as a program (`python forks.py`), it imports the package once and never computes anything itself, because
threads do not survive a fork. For every line of JSON on its standard input, which names a function of this
module and its arguments, it forks a child and answers with its process ID. To an empty line it answers with
the last child's exit status once that child has ended; until then the ID remains the child's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS, SIZE, BATCH = 2, 32, 2
FILTERS = {"0": 12, "2": 16}
"""Number of filters in the two layers of the job that is killed."""


def network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    first, second = (
        nn.Conv2d(3, FILTERS["0"], 3, padding=1),
        nn.Conv2d(FILTERS["0"], FILTERS["2"], 3, padding=1),
    )
    return nn.Sequential(first, nn.ReLU(), second).eval()


def job(out: str, **options: Any) -> None:
    """Makes an atlas of two layers of a tiny network."""
    import cnnvis_fast as cv

    cv.atlas(network(), "all", out, **{**quick(), **options})


def quick() -> dict[str, Any]:
    """Returns options with which a picture takes milliseconds."""
    values = {"steps": STEPS, "size": SIZE, "batch": BATCH, "dtype": "float32"}
    return {**values, "mean": (0.5,) * 3, "std": (0.25,) * 3, "progress": False, "threads": 1}


def hostile_cases(report: str, cases: list[dict[str, Any]]) -> None:
    """Runs the bad input of `hostile`."""
    from support.hostile_runs import run_cases

    run_cases(report, cases)


class Warm:
    """The parent of the processes that a test kills."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command, pipe = [sys.executable, __file__], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def start(self, function: str, *arguments: Any, **options: Any) -> int:
        """Forks a child; returns its process ID."""
        assert self._process.stdin
        print(json.dumps([function, arguments, options]), file=self._process.stdin, flush=True)
        return self._answer()

    def wait(self) -> int:
        """Waits until the child ends; returns its exit code, negative for a signal."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        return os.waitstatus_to_exitcode(self._answer())

    def run(self, function: str, *arguments: Any, **options: Any) -> float:
        """Runs a child until it ends; returns its seconds."""
        began = time.monotonic()
        self.start(function, *arguments, **options)
        assert self.wait() == 0
        return time.monotonic() - began

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def warm_parent() -> Iterator[Warm]:
    parent = Warm()
    try:
        yield parent
    finally:
        parent.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the contents of every file except the log, which contains times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def tiles(folder: Path) -> int:
    """Returns the number of finished tiles in a folder."""
    return len(list(folder.glob("*/[0-9]*.png")))


def main() -> None:
    import torch

    for name in (
        "inspection.activation_maps",
        "jobs.atlas",
        "page",
        "inspection.onnx.check",
    ):
        importlib.import_module(f"cnnvis_fast.{name}")
    torch.set_num_threads(1)
    child = 0
    for line in sys.stdin:
        if not line.strip():
            print(os.waitpid(child, 0)[1], flush=True)
            continue
        function, arguments, options = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                globals()[function](*arguments, **options)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        print(child, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # for `support`
    main()
