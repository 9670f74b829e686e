"""Options are validated once, by name, range and type, and never change afterwards."""

import dataclasses
import math

import numpy as np
import pytest

from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.config import PRESETS, Config, configure
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.preprocessing import Source

LIMITS = [
    ("steps", 1, 1_000_000),
    ("size", 8, 8192),
    ("seed", 0, 2**63 - 1),
    ("batch", 1, 4096),
    ("decay", 0.0, 4.0),
    ("amplitude", 1e-6, 100.0),
    ("noise", 0.0, 10.0),
    ("rate", 1e-9, 100.0),
    ("beta1", 0.0, 0.9999),
    ("beta2", 0.0, 0.99999),
    ("weight_decay", 0.0, 100.0),
    ("rotate", 0.0, 180.0),
    ("zoom", 0.0, 0.9),
    ("shift", 0.0, 1.0),
]
WHOLE_NUMBERS = ("steps", "size", "seed", "batch")


def test_no_options_give_the_natural_preset():
    assert configure() == Config() == configure("natural")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_its_values_and_its_name(preset):
    config = configure(preset)
    assert config.preset == preset
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_presets_differ_in_more_than_their_name():
    renamed = [dataclasses.replace(configure(preset), preset="") for preset in PRESETS]
    assert len({repr(config) for config in renamed}) == len(PRESETS)


def test_an_option_wins_over_the_preset():
    config = configure("strong", rate=0.5)
    assert config.rate == 0.5
    assert config.second_moment == PRESETS["strong"]["second_moment"]


def test_none_leaves_an_option_as_the_preset_has_it():
    # The command line passes None for whatever was not typed.
    assert configure("strong", decay=None, steps=None) == configure("strong")


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        configure("naturel")
    assert all(name in str(caught.value) for name in ("naturel", *PRESETS))


@pytest.mark.parametrize(
    "typed, meant", [("step", "steps"), ("sead", "seed"), ("second_momment", "second_moment")]
)
def test_an_unknown_option_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"{typed}.*did you mean.*\b{meant}\b"):
        configure(**{typed: 1})


@pytest.mark.parametrize("typed, meant", [("lr", "rate"), ("iterations", "steps"), ("n_steps", "steps")])
def test_what_other_packages_call_an_option_is_answered_with_ours(typed, meant):
    with pytest.raises(InputError, match=rf"unknown option '{typed}'; did you mean {meant}\?"):
        configure(**{typed: 1})


def test_british_spelling_of_color_is_accepted():
    assert configure(colour="grey") == configure(color="grey") == configure(color="gray")
    assert configure(colour=None) == configure()
    with pytest.raises(InputError, match="`color` and `colour` are the same option"):
        configure(color="none", colour="none")
    with pytest.raises(InputError, match="`color` must be one of auto, none, gray, got 'sepia'"):
        configure(colour="sepia")


def test_a_pair_of_sizes_is_told_that_pictures_are_square():
    with pytest.raises(InputError, match=r"`size` must be .*got \(28, 28\): pictures are square"):
        configure(size=(28, 28))


def test_an_option_like_no_other_gets_no_suggestion():
    with pytest.raises(InputError) as caught:
        configure(qqqq=1)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name, low, high", LIMITS)
def test_the_ends_of_a_range_are_taken(name, low, high):
    for value in (low, high):
        assert getattr(configure(**{name: value}), name) == value


@pytest.mark.parametrize("name, low, high", LIMITS)
def test_values_beyond_the_ends_are_refused_with_the_range(name, low, high):
    whole = name in WHOLE_NUMBERS
    below = low - 1 if whole else math.nextafter(low, -math.inf)
    above = high + 1 if whole else math.nextafter(high, math.inf)
    for value in (below, above):
        with pytest.raises(InputError, match=rf"`{name}` must be .* from .* to .*, got"):
            configure(**{name: value})


@pytest.mark.parametrize("name", [name for name, _, _ in LIMITS])
@pytest.mark.parametrize("value", [True, "1", [1], math.nan, 1j], ids=repr)
def test_a_number_must_be_a_number(name, value):
    # True equals 1, so that a range alone would let it through.
    with pytest.raises(InputError, match=f"`{name}` must be"):
        configure(**{name: value})


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_a_whole_number_has_no_fraction(name):
    with pytest.raises(InputError, match=f"`{name}` must be a whole number"):
        configure(**{name: 64.0})


@pytest.mark.parametrize(
    "name", ["dtype", "compile", "objective", "parameters", "second_moment", "transforms"]
)
@pytest.mark.parametrize("value", ["nonsense", 1, 0, ["auto"]], ids=repr)
def test_a_choice_must_be_one_of_the_named(name, value):
    # 1 equals True and 0 equals False, which `compile` takes.
    with pytest.raises(InputError, match=f"`{name}` must be one of "):
        configure(**{name: value})


def test_every_choice_is_told_when_none_fits():
    with pytest.raises(InputError, match="auto, float32, bfloat16, got 'half'"):
        configure(dtype="half")


@pytest.mark.parametrize("value", ["auto", True, False])
def test_compile_takes_auto_and_truth_values(value):
    assert configure(compile=value).compile is value


def test_bands_need_frequencies():
    assert configure(second_moment="band", parameters="fourier").second_moment == "band"
    with pytest.raises(InputError, match="frequency"):
        configure(second_moment="band", parameters="pixel")


def test_a_position_needs_a_neuron():
    assert configure(objective="neuron", position=(0, 3)).position == (0, 3)
    with pytest.raises(InputError, match='objective="neuron"'):
        configure(position=(0, 3))


@pytest.mark.parametrize("value", ["ab", (), (1, 2, 3), (1.5, 2.5), 7, (True, False)], ids=repr)
def test_a_position_is_one_or_two_whole_numbers(value):
    with pytest.raises(InputError, match="`position`"):
        configure(objective="neuron", position=value)


@pytest.mark.parametrize("value", [["natural"], 1], ids=repr)
def test_a_preset_must_be_a_name(value):
    with pytest.raises(InputError, match="preset"):
        configure(value)


def test_no_preset_is_the_default_one_and_numpys_numbers_are_numbers():
    assert configure(None, steps=np.int64(7)) == configure("natural", steps=7)


@pytest.mark.parametrize("value", [1.5, ["cpu"], "tpu", "cuda:x", "meta"], ids=repr)
def test_a_device_must_be_a_name(value):
    with pytest.raises(InputError, match="`device` must be auto, cpu, cuda or cuda:N"):
        resolve_config(configure(device=value), Source("", "", (0.0,), (1.0,), 32))


def test_every_auto_is_resolved():
    resolved = resolve_config(configure(), Source("", "", (0.0,), (1.0,), 48))
    assert resolved.device in ("cpu", "cuda")
    assert resolved.dtype in ("float32", "bfloat16")
    assert resolved.compile in (True, False)
    assert resolved.size == 48
    assert resolve_config(configure(size=32), Source("", "", (0.0,), (1.0,), 48)).size == 32


def test_a_configuration_never_changes():
    config = configure()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 3


def test_configurations_are_equal_and_hash_alike_by_value():
    assert configure(steps=3) == configure(steps=3) != configure(steps=4)
    assert hash(configure(steps=3)) == hash(configure(steps=3))
