"""Every way that the ascent of a picture can end has one status."""

import math

import pytest

from cnnvis_fast.ascent.status import after_ascent, after_scoring, before_ascent


@pytest.mark.parametrize(
    ("started_dead", "still_dead", "expected"),
    [(False, False, "ok"), (True, False, "redirected"), (True, True, "dead")],
)
def test_the_first_status_tells_whether_a_picture_has_a_gradient(started_dead, still_dead, expected):
    assert before_ascent(started_dead, still_dead) == expected


@pytest.mark.parametrize("status", ["ok", "redirected", "dead"])
def test_numbers_that_are_not_finite_overrule_every_status(status):
    assert after_ascent(status, finite=True) == status
    assert after_ascent(status, finite=False) == "nonfinite"


@pytest.mark.parametrize(
    ("status", "score", "expected"),
    [
        ("ok", 1.5, "ok"),
        ("ok", 1.0, "stalled"),
        ("redirected", 0.5, "stalled"),
        ("ok", math.nan, "stalled"),
        ("dead", 0.5, "dead"),
        ("nonfinite", 0.5, "nonfinite"),
    ],
)
def test_a_picture_that_does_not_beat_its_start_is_stalled(status, score, expected):
    assert after_scoring(status, 1.0, score) == expected
