"""Decides how the ascent of a picture ended: one status per picture, step by step."""

from __future__ import annotations

from typing import Final

OK: Final = "ok"
REDIRECTED: Final = "redirected"
"""The picture started without a gradient and was helped to one."""
DEAD: Final = "dead"
"""The picture never had a gradient."""
NONFINITE: Final = "nonfinite"
"""Scores or gradients stopped being finite."""
STALLED: Final = "stalled"
"""The finished picture does not score higher than its start."""


def before_ascent(started_dead: bool, still_dead: bool) -> str:
    """Returns the status of a picture once redirected gradients had their chance to help it."""
    if still_dead:
        return DEAD
    return REDIRECTED if started_dead else OK


def after_ascent(status: str, finite: bool) -> str:
    """Returns the status of a picture after its last step, from the status that it began with."""
    return status if finite else NONFINITE


def after_scoring(status: str, start_score: float, score: float) -> str:
    """Returns the final status of a picture, from the status after its last step."""
    return STALLED if status in (OK, REDIRECTED) and not score > start_score else status
