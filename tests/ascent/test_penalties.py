"""Checks penalties against autograd, noise against statistics, and borders against drawings."""

from __future__ import annotations

import math

import pytest
import torch

from cnnvis_fast.ascent.penalties import penalized, total_variation_gradient
from cnnvis_fast.ascent.transforms import inside, noise_table, normal_noise, warp_table
from cnnvis_fast.config import configure
from cnnvis_fast.images.statistics import literature
from cnnvis_fast.parameterizations.fourier import Fourier
from cnnvis_fast.parameterizations.pixels import Pixel


def total_variation(z: torch.Tensor) -> torch.Tensor:
    """Returns the sum of sqrt(d^2 + 1e-6) over all differences d of neighbors, [B]."""
    down, right = ((d.square() + 1e-6).sqrt().sum((1, 2, 3)) for d in (z.diff(dim=2), z.diff(dim=3)))
    return down + right


def saturation(z: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Returns half the sum of squares of how far the logits lie beyond ±3, [B]."""
    logits = torch.einsum("ij,bjhw->bihw", color, z)
    return 0.5 * (logits - logits.clamp(-3, 3)).square().sum((1, 2, 3))


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_gradient_of_total_variation_is_autograds() -> None:
    z = draw(2, 3, 7, 9).requires_grad_()
    (expected,) = torch.autograd.grad(total_variation(z).sum(), z)
    torch.testing.assert_close(total_variation_gradient(z.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("color", [torch.eye(3).double(), literature(3).color.double()], ids=["none", "ours"])
def test_penalties_are_in_units_of_the_gradient(color: torch.Tensor) -> None:
    dz, z = draw(2, 3, 6, 6), draw(2, 3, 6, 6) * 6
    config = configure(total_variation=0.3, l1=0.2, l2=0.1, saturation=0.05)
    found = penalized(dz, z, color, config)
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(saturation(leaf, color).sum(), leaf)
    assert slope.count_nonzero() > 0
    for row in range(2):
        rms = dz[row].square().mean().sqrt()
        pull = 0.3 * total_variation_gradient(z)[row] + 0.2 * z[row].sign() + 0.1 * z[row]
        pull = pull + 0.05 * slope[row]
        torch.testing.assert_close(found[row], dz[row] - rms * pull)
    torch.testing.assert_close(penalized(10 * dz, z, color, config), 10 * found)
    assert penalized(dz, z, color, configure(saturation=0.0)) is dz


@pytest.mark.parametrize("parameters", ["fourier", "pixel"])
def test_a_blur_takes_high_frequencies_and_leaves_low_ones(parameters: str) -> None:
    size, radius = 32, 1.5
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    waves = [torch.cos(2 * math.pi * k * column / size) for k in (0, 2, 12)]
    z = torch.stack(waves)[:, None].expand(3, 3, size, size).contiguous()
    made = (
        Fourier(3, size, 0.1, 1.0, 0.25, torch.device("cpu"))
        if parameters == "fourier"
        else Pixel(3, size, 0.1)
    )
    p = made.encode(z).clone()
    made.soften_(p, radius)
    found = made.decode(p)[:, :, 8:-8, 8:-8]
    for number, k in enumerate((0, 2, 12)):
        factor = math.exp(-2 * (math.pi * radius * k / size) ** 2)
        torch.testing.assert_close(found[number], factor * z[number, :, 8:-8, 8:-8], rtol=0.02, atol=4e-3)
    assert row.shape == (size, size)


def test_noise_is_normal_independent_and_a_function_of_its_seed() -> None:
    seeds = torch.tensor([1, 2, 12345678901 % 2**32])
    found = normal_noise(seeds, (3, 64, 65))
    assert found.dtype == torch.float32
    assert torch.equal(normal_noise(seeds[1:2], (3, 64, 65))[0], found[1])
    count = found[0].numel()
    for row in found.flatten(1).double():
        assert abs(float(row.mean())) < 5 / count**0.5
        assert abs(float(row.var()) - 1) < 5 * (2 / count) ** 0.5
        assert abs(float((row**4).mean()) - 3) < 0.3
        assert abs(float((row[1:] * row[:-1]).mean())) < 5 / count**0.5
        assert float(row.abs().max()) < 6
    assert abs(float((found[0] * found[1]).mean())) < 5 / count**0.5


def test_seeds_of_the_noise_differ_by_step_and_picture_and_not_by_neighbors() -> None:
    config = configure(input_noise=0.1, steps=5)
    table = noise_table(config, ["a", "b"])
    assert len({int(seed) for row in table if row is not None for seed in row}) == 10
    alone = noise_table(config, ["b"])
    assert [int(row[1]) for row in table if row is not None] == [
        int(row[0]) for row in alone if row is not None
    ]
    assert noise_table(configure(steps=3), ["a"]) == [None] * 3


def corners(warp: torch.Tensor) -> torch.Tensor:
    square = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    return torch.einsum("bij,kj->bki", warp, square)


def test_a_crop_stays_within_the_picture_and_reaches_its_edges() -> None:
    config = configure(crop=0.3, rotate=0, zoom=0, shift=0, steps=400)
    table = torch.stack([warp for warp in warp_table(config, ["a"], 64) if warp is not None])[:, 0]
    found = corners(table)
    assert float(found.abs().max()) <= 1 + 1e-6
    assert float(found.abs().max()) > 0.99
    sides = (found[:, 1, 0] - found[:, 0, 0]) / 2
    assert 0.3 <= float(sides.min()) < 0.31
    assert 0.99 < float(sides.max()) <= 1


def test_a_pad_shows_the_whole_picture_with_a_border_of_its_share() -> None:
    config = configure(pad=0.25, rotate=0, zoom=0, shift=0, steps=1)
    (warp,) = warp_table(config, ["a"], 64)
    assert warp is not None
    shown = inside(warp, 60, 60)[0, 0]
    # 60 pixels hold 1.5 pictures, so the picture takes the 40 in the middle.
    assert shown[10:50, 10:50].all()
    assert int(shown.sum()) == 40 * 40
