"""Shows how far a job is, and when it will be done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

_BAR = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


def hidden(shown: bool | None) -> bool | None:
    """Returns tqdm's `disable` for an argument `progress`; None shows a bar only on a terminal."""
    return None if shown is None else not shown


class Progress:
    """Counts pictures, broken ones too; half of the steps count as half a picture."""

    def __init__(self, bar: Any, done: int) -> None:
        self._bar, self.done = bar, float(done)

    def reach(self, pictures: float) -> None:
        """Sets how many pictures are done beyond `done`; fewer than before where a batch starts again."""
        self._bar.update(self.done + pictures - self._bar.n)

    def finish(self, pictures: int) -> None:
        """Adds pictures to those that are finished."""
        self.done += pictures
        self.reach(0)

    def name(self, label: str) -> None:
        """Shows what is being made."""
        self._bar.set_description_str(label, refresh=False)


@contextlib.contextmanager
def progress_bar(
    total: int, label: str, shown: bool | None, done: int = 0, pace: float | None = None
) -> Iterator[Progress]:
    """Shows a bar on standard error while open.

    Args:
        total: number of pictures.
        label: what is being made.
        shown: whether to show the bar; None shows it on a terminal.
        done: number of pictures that were finished before.
        pace: seconds that each of them took, so that the remaining time is known from the start.
    """
    # With `smoothing=0` the rate is an average over all pictures, those finished before too.
    with tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=" pictures",
        bar_format=_BAR,
        disable=hidden(shown),
        smoothing=0,
    ) as bar:
        if done and pace is not None and not bar.disable:
            bar.initial = 0
            bar.start_t -= done * pace
            bar.refresh()
        yield Progress(bar, done)
