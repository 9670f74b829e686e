"""Times contenders side by side and appends each row to a file as it is measured."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

RESULTS = Path(__file__).parents[1] / "results"
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 60

Work = Callable[[], object]


def interleaved(contenders: Mapping[str, Work], device: str, seconds: float = 4.0) -> dict[str, list[float]]:
    """Returns the milliseconds of every call; each round runs one contender after the other.

    A temporary slowdown of the machine affects all contenders, so ratios of medians hold where single times
    do not. Every timed call follows an untimed one of the same contender, as in a loop, so that it does not
    depend on what another contender left in the caches. Ends after `seconds`, but not before five rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    for done in range(_MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for name, work in contenders.items():
            times[name].append(_milliseconds(work, device))
    return times


def _milliseconds(work: Work, device: str) -> float:
    work()
    if device == "cpu":
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3
    # Times many launches in a row; otherwise the host would dominate.
    calls = 20
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in range(calls):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / calls


def quantiles(times: list[float]) -> tuple[float, float, float]:
    """Returns the 20th, 50th and 80th percentiles."""
    p20, _, _, p80 = statistics.quantiles(times, n=5)
    return p20, statistics.median(times), p80


def copy_of(count: int, device: str) -> Work:
    """Returns a copy that reads and writes `count` bytes in total: the floor for an op that moves as many."""
    source = torch.ones(count // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def append(name: str, row: Mapping[str, object]) -> None:
    """Appends a row to `bench/results/NAME.jsonl`, with the environment it was measured in."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps({**row, **environment(str(row.get("device", "cpu")))}) + "\n")


def environment(device: str) -> dict[str, object]:
    """Returns commit, machine and versions."""
    # Changed results do not count as changes of the code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results")
    return {
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else ""),
        "machine": torch.cuda.get_device_name() if device != "cpu" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str:
    """Returns what git prints; nothing where there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
