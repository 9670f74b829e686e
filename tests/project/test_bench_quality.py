"""The measures that only the benchmark of pictures has, on pictures whose measures are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last, so that the installed package goes before the folder of the same name

from bench import quality  # noqa: E402
from bench.support.grid import grid  # noqa: E402


def noise_of_slope(slope: float, size: int = 224) -> torch.Tensor:
    """uint8 [3, size, size] whose amplitude falls with frequency to the power of the slope."""
    white = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0))
    radius = torch.hypot(torch.fft.fftfreq(size, 1 / size)[:, None], torch.fft.rfftfreq(size, 1 / size))
    shaped = torch.fft.irfft2(torch.fft.rfft2(white) * radius.clamp_min(1) ** slope, s=(size, size))
    return (127 + 40 * shaped / shaped.std()).clamp(0, 255).round().to(torch.uint8)


@pytest.mark.parametrize("slope", [-0.5, -1.0, -1.5])
def test_the_slope_of_a_spectrum_is_the_one_it_was_drawn_with(slope: float) -> None:
    measured, distance = quality.spectrum(noise_of_slope(slope))
    assert measured == pytest.approx(2 * slope, abs=0.25)
    assert distance < 0.1 or slope != -1.0


def test_views_are_turned_scaled_and_degraded_pictures() -> None:
    picture = noise_of_slope(-1.5, 96)
    views = quality.views(picture)
    assert views.shape == (8, 3, 96, 96)
    assert views.dtype == torch.uint8
    spread = views.float().flatten(1).std(1)
    own = float(picture.float().std())
    assert float(spread[6]) == pytest.approx(own / 2, rel=0.02)  # half the contrast
    assert all(not torch.equal(view, picture) for view in views)
    middle = np.s_[:, 40:56, 40:56]
    for view in views[4:6].float():  # blurred, with noise: the same picture underneath
        assert abs(float((view - picture.float())[middle].mean())) < 4


def test_a_warp_by_nothing_changes_nothing_and_a_turn_turns() -> None:
    picture = torch.zeros(1, 33, 33, dtype=torch.uint8)
    picture[0, 16, 26] = 255  # ten pixels to the right of the middle
    assert np.array_equal(quality._warped(picture, 0, 1)[..., 0], picture[0].numpy())
    turned = quality._warped(picture, 90, 1)[..., 0]
    row, column = divmod(int(turned.argmax()), 33)
    assert (abs(row - 16), column) == (10, 16)
    closer = quality._warped(picture, 0, 0.5)[..., 0]  # half of it fills the frame
    assert closer.max() < 1
    assert int(quality._warped(picture, 0, 2)[..., 0].argmax()) % 33 == 21


def test_a_grid_has_a_cell_for_every_picture(tmp_path: Path) -> None:
    red = Image.new("RGB", (50, 50), (255, 0, 0))
    grid({"one": {"a": red, "b": red}, "two": {"a": red, "b": None}}, tmp_path / "grid.png", tile=40)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB")).astype(int)
    reds = (pixels[..., 0] > 200) & (pixels[..., 1:].max(-1) < 60)
    assert reds.sum() == pytest.approx(3 * 40 * 40, rel=0.02)
