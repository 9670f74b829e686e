"""Options shape a picture's spectrum and keep its values from saturating."""

import pytest
import torch

import cnnvis_fast as cv
from cnnvis_fast.ascent.penalties import penalized
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.parameterizations.fourier import Fourier
from cnnvis_fast.results.measures import high_frequency_share, saturated_share


def scale(corner: float, cutoff: float) -> torch.Tensor:
    """Returns the scale of frequencies along the rows, 0 to 50 cycles per image of 100 pixels."""
    return Fourier(3, 100, 0.01, 1.5, 0.25, torch.device("cpu"), corner, cutoff).scale[0, :, 0]


def test_the_spectrum_is_flat_below_the_corner_and_as_before_above():
    plain, cornered = scale(1, 0), scale(8, 0)
    assert torch.equal(cornered[8:], plain[8:])
    assert torch.equal(cornered[:8], plain[8].expand(8))


def test_the_cutoff_takes_half_the_power_and_a_factor_of_16_an_octave_higher():
    ratio = scale(1, 0.2) / scale(1, 0)
    assert float(ratio[20]) == pytest.approx(0.5**0.5, rel=1e-5)
    assert float(ratio[40]) == pytest.approx(1 / 16, rel=0.01)
    assert float(ratio[10]) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("decay", [1.0, 1.8])
def test_a_frequency_has_the_same_contrast_at_every_size(decay):
    def contrast(size: int) -> float:
        plan = make_plan(cv.load_model("texturenet"), "conv1", configure(size=size, decay=decay, cutoff=0.0))
        z = plan.parameters.decode(plan.parameters.start(["a", "b", "c"]))
        axis = torch.fft.fftfreq(size)
        radius = (axis[:, None].square() + axis.square()).sqrt()
        power = torch.fft.fft2(z, norm="forward").abs().square()
        return float((power * ((radius > 0.1) & (radius < 0.2))).sum((2, 3)).mean().sqrt())

    assert contrast(96) == pytest.approx(contrast(240), rel=0.1)


def test_the_pull_is_in_units_of_each_pictures_gradient():
    dz, z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((2, 3, 8, 8), 5.0)
    dz[1] *= 100
    pulled = penalized(dz, z, torch.eye(3), configure(saturation=1.5))
    for row in range(2):
        expected = dz[row] - dz[row].square().mean().sqrt() * 1.5 * 2  # logits of 5 are 2 beyond 3
        torch.testing.assert_close(pulled[row], expected)


def test_values_within_the_limit_are_left_alone():
    dz, z = torch.randn(1, 3, 8, 8), torch.full((1, 3, 8, 8), -2.9)
    assert torch.equal(penalized(dz, z, torch.eye(3), configure(saturation=10.0)), dz)


def test_pictures_saturate_less_and_hold_fewer_high_frequencies_when_told_so():
    options = {
        "size": 64,
        "steps": 48,
        "second_moment": "image",
        "decay": 1.0,
        "amplitude": 0.25,
        "rate": 0.2,
    }

    def pictures(saturation: float = 0.0, cutoff: float = 0.0) -> torch.Tensor:
        more = {"saturation": saturation, "cutoff": cutoff, "progress": False}
        return cv.maximize("texturenet", "conv3", [0, 9], **options, **more).pixels

    plain, pulled, smooth = pictures(), pictures(saturation=2.0), pictures(saturation=2.0, cutoff=0.1)
    assert float(saturated_share(plain).mean()) > 0.2
    assert float(saturated_share(pulled).mean()) < 0.5 * float(saturated_share(plain).mean())
    assert float(high_frequency_share(smooth).mean()) < 0.5 * float(high_frequency_share(pulled).mean())
