"""Random numbers and transforms are functions of a key, and lie where they should."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnvis_fast.ascent.transforms import warp_table
from cnnvis_fast.config import configure
from cnnvis_fast.randomness import normals, uniforms
from cnnvis_fast.results.scores import ROBUST_DRAWS, robust_warps

MANY = 100_000
Stream = Callable[[str, int], Any]
streams = pytest.mark.parametrize("stream", [uniforms, normals])


@streams
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_the_first_numbers_do_not_depend_on_how_many_are_drawn(stream: Stream, count: int) -> None:
    numbers = stream("key", count)
    assert numbers.shape == (count,)
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, stream("key", 1000)[:count])


@streams
def test_the_global_seeds_do_not_matter_and_stay(stream: Stream) -> None:
    expected = stream("key", 10)
    np.random.seed(1)
    torch.manual_seed(1)
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    np.testing.assert_array_equal(stream("key", 10), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert torch.equal(torch.get_rng_state(), torch_state)


@streams
def test_streams_of_different_keys_are_independent(stream: Stream) -> None:
    keys = ("0/conv1/0", "0/conv1/1", "1/conv1/0", "0/conv1/01", "")
    for one, other in itertools.combinations([stream(key, MANY) for key in keys], 2):
        assert not np.isin(one[:100], other).any()
        assert abs(np.corrcoef(one, other)[0, 1]) <= 5 / MANY**0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
@streams
def test_numbers_of_one_stream_are_independent(stream: Stream, lag: int) -> None:
    numbers = stream("key", MANY)
    assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) <= 5 / MANY**0.5


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniforms("moments", MANY)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 1 / 2) <= 5 * (1 / 12 / MANY) ** 0.5
    # Var of (u - 1/2)^2 is 1/80 - 1/144 = 1/180.
    assert abs(((numbers - 1 / 2) ** 2).mean() - 1 / 12) <= 5 * (1 / 180 / MANY) ** 0.5
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert (abs(counts - MANY / 100) <= 5 * (MANY / 100) ** 0.5).all()


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    numbers = normals("moments", MANY)
    # E x^2n = 1, 3, 15, 105, ..., and the variance of a mean of x^n is (E x^2n - (E x^n)^2) / count.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((numbers**power).mean() - moment) <= 5 * (variance / MANY) ** 0.5, power
    # A cosine and a sine of one angle: uncorrelated would not be enough, their squares must be so too.
    even, odd = numbers[::2] ** 2, numbers[1::2] ** 2
    assert abs(np.corrcoef(even, odd)[0, 1]) <= 5 / (MANY / 2) ** 0.5


def affine(steps: int = 500, keys: tuple[str, ...] = ("a", "b"), **options: Any) -> Tensor:
    """[steps, keys, 2, 3]"""
    return torch.stack([w for w in warp_table(configure(steps=steps, **options), keys, 64) if w is not None])


def parts(warps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Degrees, scale and shift as a share of the size, of matrices that turn and scale but do not shear."""
    torch.testing.assert_close(warps[..., 0, 0], warps[..., 1, 1])
    torch.testing.assert_close(warps[..., 0, 1], -warps[..., 1, 0])
    degrees = torch.rad2deg(torch.atan2(warps[..., 1, 0], warps[..., 0, 0]))
    return degrees, torch.linalg.det(warps[..., :2]).sqrt(), warps[..., 2] / 2


def test_affine_transforms_fill_their_ranges() -> None:
    degrees, scale, shift = parts(affine(rotate=20.0, zoom=0.3, shift=0.2))
    for values, reach in ((degrees, 20), (scale - 1, 0.3), (shift[..., 0], 0.2), (shift[..., 1], 0.2)):
        assert 0.95 * reach <= float(values.max()) <= reach * (1 + 1e-5)
        assert 0.95 * reach <= -float(values.min()) <= reach * (1 + 1e-5)
        # Uniform: variance reach^2 / 3, here over 1000 draws.
        assert abs(float(values.mean())) <= 5 * reach / 3000**0.5


@pytest.mark.parametrize(("option", "still"), [("rotate", (1, 2)), ("zoom", (0, 2)), ("shift", (0, 1))])
def test_each_range_moves_its_own_part_alone(option: str, still: tuple[int, int]) -> None:
    none = {"rotate": 0.0, "zoom": 0.0, "shift": 0.0}
    found = parts(affine(**(none | {option: 0.5})))
    for part in still:
        expected = torch.full_like(found[part], 1.0 if part == 1 else 0.0)
        torch.testing.assert_close(found[part], expected, rtol=0, atol=1e-5)
    moved = ({0, 1, 2} - set(still)).pop()
    assert found[moved].std() > 0.1


def test_jitter_reaches_both_ends_of_its_range_and_not_further() -> None:
    config = configure(steps=2000, transforms="jitter", shift=0.05)
    table = torch.stack([w for w in warp_table(config, ["a", "b"], 64) if w is not None])
    assert table.shape == (2000, 2, 2)
    assert table.dtype == torch.int64
    reach = 3  # 0.05 of 64 px, rounded
    for axis in (0, 1):
        values, counts = table[..., axis].unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach + 1))
        expected = 4000 / len(values)
        assert ((counts - expected).abs() <= 5 * expected**0.5).all()


@pytest.mark.parametrize("transforms", ["affine", "jitter"])
def test_the_transform_of_a_step_depends_on_key_and_step_alone(transforms: str) -> None:
    short = warp_table(configure(steps=3, transforms=transforms), ["a"], 64)
    long = warp_table(configure(steps=9, transforms=transforms), ["b", "a"], 64)
    for step in range(3):
        one, two = short[step], long[step]
        assert one is not None
        assert two is not None
        assert one.is_contiguous()
        assert torch.equal(one[0], two[1])
        assert not torch.equal(two[0], two[1])
    assert len({str(w) for w in long}) == 9


def test_no_transforms_are_none_at_every_step() -> None:
    assert warp_table(configure(steps=4, transforms="none"), ["a", "b"], 64) == [None] * 4


def test_the_transforms_of_the_robust_score_are_fixed() -> None:
    warps = robust_warps()
    assert warps.shape == (ROBUST_DRAWS, 2, 3)
    assert warps.dtype == torch.float32
    torch.manual_seed(1)
    assert torch.equal(robust_warps(), warps)
    degrees, scale, shift = parts(warps)
    for values, reach in ((degrees, 10), (scale - 1, 0.1), (shift, 8 / 224)):
        assert 0.5 * reach <= float(values.abs().max()) <= reach * (1 + 1e-5)
        assert values.min() < 0 < values.max()
    assert len(warps.flatten(1).unique(dim=0)) == ROBUST_DRAWS
