"""Runs each case of bad input and observes everything it does.

`run_cases` runs in a process that `forks` has forked for it. It reports, per case, the exit code, the printed
text, seconds, memory and every forbidden action: a write outside the case's own output, a connection, another
program.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.hostile import Case


@dataclass
class Outcome:
    """What happened in a case."""

    name: str
    code: int | None
    error: str
    traceback: str = ""
    seconds: float = 0
    megabytes: float = 0
    forbidden: list[str] = field(default_factory=list)


def run_cases(report: str, cases: list[dict[str, Any]]) -> None:
    """Runs cases one after the other and writes their outcomes to a file."""
    watched = Watched()
    sys.addaudithook(watched.audit)
    outcomes = [asdict(_run(Case(**case), watched)) for case in cases]
    Path(report).write_text(json.dumps(outcomes))


class Watched:
    """Records forbidden actions while a case runs."""

    NEVER = (
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
    )
    PATHS = (
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
    )

    def __init__(self) -> None:
        self.out: str | None = None
        self.forbidden: list[str] = []

    def audit(self, event: str, details: tuple[Any, ...]) -> None:
        if self.out is None:
            return
        if event in self.NEVER:
            self.forbidden.append(f"{event} {details!r}"[:200])
        elif event == "open":
            path, mode, flags = details
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if flags else "w" in str(mode)
            if writes and not isinstance(path, int) and str(path) != "/dev/null":
                self._check(event, path)
        elif event in self.PATHS:
            for path in details[: 2 if event in ("os.rename", "os.link") else 1]:
                self._check(event, path)

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int):  # a descriptor, whose path was checked when it was opened
            return
        real = os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path))))
        inside = os.path.realpath(str(self.out))
        if not f"{real}/".startswith(f"{inside}/") and os.path.abspath(os.fsdecode(path)) != inside:
            out_of_place = os.path.dirname(inside) != real
            if out_of_place or event == "open":
                self.forbidden.append(f"{event} {path!r}"[:200])


def _peak() -> float:
    """Returns the peak memory so far in MB; `ru_maxrss` would start with the parent process's peak."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def _run(case: Case, watched: Watched) -> Outcome:
    from cnnvis_fast.commands import main

    printed, error = io.StringIO(), io.StringIO()
    before = _peak()
    cpu, outcome = time.process_time(), Outcome(case.name, None, "")
    # A PNG's temporary file lies in the same folder.
    watched.out, watched.forbidden = os.path.dirname(case.out) if case.out.endswith(".png") else case.out, []
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(error):
            outcome.code = main.main(case.arguments)
    except SystemExit as end:
        outcome.code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        outcome.traceback = traceback.format_exc()
    watched.out = None
    outcome.error, outcome.forbidden = error.getvalue(), watched.forbidden
    outcome.seconds = time.process_time() - cpu
    outcome.megabytes = _peak() - before
    return outcome
