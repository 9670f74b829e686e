"""The vocabulary of objectives: arithmetic, names, text, and one sentence for what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnvis_fast.errors import InputError
from cnnvis_fast.objectives import (
    Direction,
    Objective,
    Unit,
    accentuation,
    caricature,
    channel,
    deepdream,
    direction,
    diverse,
    interpolate,
    inversion,
    logit,
    neuron,
    parse,
)
from cnnvis_fast.objectives.terms import form_of, linear

PHOTO = Image.new("RGB", (32, 32), (200, 90, 30))


def test_sums_keep_their_terms_and_weights():
    total = 2 * channel("a", 1) - 0.5 * neuron("b", 3, (4, 5))
    assert total.terms == ((2.0, Unit("a", 1)), (-0.5, Unit("b", 3, (4, 5))))
    assert str(total) == "2*a:1 - 0.5*b:3@4,5"
    assert total.layers == ["a", "b"]
    assert str(-total) == "-2*a:1 + 0.5*b:3@4,5"


def test_a_term_that_is_relative_does_not_grow_with_a_factor():
    objective = accentuation(PHOTO, channel("a", 1), "b", strength=0.7)
    assert [weight for weight, _ in (3 * objective).terms] == [3.0, 0.7]
    assert (3 * objective).start == objective.start


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv5:3", channel("conv5", 3)),
        (" features.12.expand3x3:17 ", channel("features.12.expand3x3", 17)),
        ("conv5:3@4,5", neuron("conv5", 3, (4, 5))),
        ("layer:3@7", neuron("layer", 3, 7)),
        ("conv5:3@centre", neuron("conv5", 3)),
        ("conv5:3@center", neuron("conv5", 3)),
        ("-conv5:3 + 0.5*conv2:7", 0.5 * channel("conv2", 7)),
        ("1e-1*a:1 - 2*b-c:2", 0.1 * channel("a", 1) - 2 * channel("b-c", 2)),
        ("deepdream(conv4)", deepdream("conv4")),
    ],
)
def test_text_is_read(text: str, expected: Objective):
    if text.startswith("-"):
        expected = -channel("conv5", 3) + expected
    assert parse(text) == expected


def test_text_about_a_photo_needs_one():
    assert parse("caricature(a) + inversion(b)", PHOTO) == caricature(PHOTO, "a") + inversion(PHOTO, "b")
    with pytest.raises(InputError, match="--photo"):
        parse("caricature(a)")


@pytest.mark.parametrize(
    "text", ["", "conv5", "conv5:", "conv5:x", "conv5:3 +", "a:1 + + b:2", "a:1@", "x(a)"]
)
def test_other_text_is_refused(text: str):
    with pytest.raises(InputError, match="cannot read the objective"):
        parse(text)


NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}[a-z0-9]", fullmatch=True)
POSITIONS = st.none() | st.lists(st.integers(0, 99), max_size=2).map(tuple)
UNITS = st.builds(Unit, NAMES, st.integers(0, 5000), POSITIONS)
WEIGHTS = st.sampled_from([1.0, -1.0, 0.25, -2.5, 1e-05, 1e6])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(WEIGHTS, UNITS), min_size=1, max_size=4))
def test_what_is_written_is_read_again(terms):
    objective = Objective(tuple(terms))
    assert parse(str(objective)) == objective


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=40))
def test_any_text_is_an_objective_or_one_sentence(text: str):
    try:
        parse(text)
    except InputError as error:
        assert "\n" not in str(error).replace(repr(text), "")


def test_photos_are_compared_by_their_pixels():
    same, other = Image.new("RGB", (32, 32), (200, 90, 30)), Image.new("RGB", (32, 32), (200, 90, 31))
    assert caricature(PHOTO, "a") == caricature(same, "a")
    assert caricature(PHOTO, "a") != caricature(other, "a")
    assert str(inversion(PHOTO, "a")) == str(inversion(np.asarray(PHOTO), "a"))


def test_objectives_between_two_share_their_randomness_and_their_form():
    found = interpolate(channel("a", 1), channel("b", 2), 5)
    assert [tuple(weight for weight, _ in one.terms) for one in found] == [
        (1.0, 0.0),
        (0.75, 0.25),
        (0.5, 0.5),
        (0.25, 0.75),
        (0.0, 1.0),
    ]
    assert len({one.key for one in found}) == len({form_of(one) for one in found}) == 1


def test_only_one_linear_term_kind_of_one_layer_is_folded():
    assert linear(form_of(channel("a", 1) + 2 * neuron("a", 2) - direction("a", [1, 2])))
    for other in (channel("a", 1) + channel("b", 1), deepdream("a"), direction("a", [1, 2], 1.0)):
        assert not linear(form_of(other))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: channel("a", -1), "`unit`"),
        (lambda: channel("a", True), "`unit`"),
        (lambda: channel("", 1), "`layer`"),
        (lambda: logit(1.5), "`unit`"),
        (lambda: neuron("a", 1, (1, -2)), "`position`"),
        (lambda: direction("a", []), "`vector`"),
        (lambda: direction("a", [0.0, 0.0]), "`vector`"),
        (lambda: direction("a", [1.0, float("nan")]), "`vector`"),
        (lambda: direction("a", "text"), "`vector`"),
        (lambda: direction("a", [1.0], cosine_power=-1), "`cosine_power`"),
        (lambda: channel("a", 1) * float("inf"), "finite"),
        (lambda: interpolate(channel("a", 1), channel("a", 2), 1), "`count`"),
        (lambda: diverse(channel("a", 1), 1), "`count`"),
        (lambda: diverse(channel("a", 1), 2, strength=0), "`strength`"),
        (lambda: diverse(channel("a", 1), 2)[0] + channel("a", 2), "diverse"),
        (lambda: caricature("no such photo.jpg", "a"), "no photo"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(make, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_a_tensor_is_a_vector():
    (_, term), *_ = direction("a", torch.tensor([1.0, 2.0], dtype=torch.float16)).terms
    assert isinstance(term, Direction)
    assert term.vector == (1.0, 2.0)
