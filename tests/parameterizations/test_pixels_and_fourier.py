"""`decode` is the inverse transform of the parameters, and `adjoint` is its exact adjoint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnvis_fast.images.statistics import literature
from cnnvis_fast.parameterizations.fourier import Fourier
from cnnvis_fast.parameterizations.pixels import Pixel

SIZES = (8, 9, 16, 17)
KEYS = ("0/conv1/0", "0/conv1/1", "1/conv1/0")
sizes = pytest.mark.parametrize("size", SIZES)


def fourier(size: int, channels: int = 3, decay: float = 1.0) -> Fourier:
    """In float64, so that only the formula is tested; the weights 1 and 2 are exact in any precision."""
    parameters = Fourier(channels, size, 0.01, decay, 0.25, torch.device("cpu"))
    parameters.scale = parameters.scale.double()
    parameters.adjoint_scale = parameters.adjoint_scale.double()
    parameters.weight = parameters.weight.double()
    return parameters


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def own_columns(size: int) -> list[int]:
    """Columns of the half spectrum that hold their own mirror image."""
    return [0, size // 2] if size % 2 == 0 else [0]


def assert_hermitian(p: Tensor, size: int, tolerance: float) -> None:
    values = torch.view_as_complex(p)
    for column in own_columns(size):
        for row in range(size):
            mirrored = values[..., -row % size, column].conj()
            assert (values[..., row, column] - mirrored).abs().max() <= tolerance, (row, column)


def full_spectrum(half: np.ndarray, size: int) -> np.ndarray:
    """F(-k) = conj(F(k)) fills in the columns that a half spectrum leaves out."""
    full = np.zeros((*half.shape[:-1], size), dtype=np.complex128)
    full[..., : size // 2 + 1] = half
    for row in range(size):
        for column in range(size // 2 + 1, size):
            full[..., row, column] = half[..., -row % size, size - column].conj()
    return full


@sizes
def test_decode_is_the_inverse_transform_of_the_whole_spectrum(size: int) -> None:
    parameters = fourier(size)
    p = parameters.start(KEYS).double()
    half = torch.view_as_complex(p * parameters.scale).numpy()
    # NumPy divides the inverse by the number of pixels, norm="forward" does not.
    expected = np.fft.ifft2(full_spectrum(half, size)) * size**2
    # A start that is not Hermitian would leave an imaginary part behind.
    assert abs(expected.imag).max() <= 1e-7 * abs(expected.real).max()
    np.testing.assert_allclose(parameters.decode(p), expected.real, rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [8, 16, 17, 32, 48, 64, 75, 96, 128, 224])
def test_the_bits_do_not_depend_on_the_number_of_threads(
    size: int, set_threads: Callable[[int], None]
) -> None:
    parameters = Fourier(3, size, 1.0, 1.0, 0.25, torch.device("cpu"))
    p = parameters.start(["a", "b", "c", "d"])
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        z = parameters.decode(p)
        results.append((z, parameters.adjoint(z, p)))
    for found in results[1:]:
        assert all(map(torch.equal, found, results[0]))


@sizes
def test_the_start_is_hermitian_where_a_column_is_its_own_mirror(size: int) -> None:
    p = fourier(size).start(KEYS)
    assert_hermitian(p, size, tolerance=0)
    assert p[..., 1, :].abs().min() > 0


@sizes
def test_the_start_spreads_alike_over_all_coefficients_but_the_real_ones(size: int) -> None:
    p = Fourier(64, size, 0.01, 1.0, 0.25, torch.device("cpu")).start(["key"])[0] / 0.01
    spread = p.square().mean(0)
    whole = torch.ones(size, size // 2 + 1, dtype=torch.bool)
    for column in own_columns(size):
        for row in {0, size // 2} if size % 2 == 0 else {0}:
            whole[row, column] = False
            assert p[:, row, column, 1].abs().max() == 0
    # A mean over 64 squares of normal numbers has a standard deviation of sqrt(2 / 64).
    assert (spread[whole] - 1).abs().max() <= 6 * (2 / 64) ** 0.5
    assert abs(float(spread[whole].mean()) - 1) <= 5 * (2 / (64 * spread[whole].numel() / 2)) ** 0.5


@sizes
def test_adjoint_is_the_adjoint_of_decode(size: int) -> None:
    parameters = fourier(size)
    p, dz = parameters.start(KEYS).double() * 100, draw(3, 3, size, size)
    dp = parameters.adjoint(dz, p)
    forward, products = (dz * parameters.decode(p)).sum(), dp * p
    assert dp.shape == p.shape
    assert (forward - products.sum()).abs() <= 1e-13 * products.abs().sum()


@sizes
def test_adjoint_is_the_gradient_of_autograd(size: int) -> None:
    parameters = fourier(size)
    p, dz = parameters.start(KEYS).double().requires_grad_(), draw(3, 3, size, size)
    (expected,) = torch.autograd.grad(parameters.decode(p), p, dz)
    torch.testing.assert_close(parameters.adjoint(dz, p), expected, rtol=1e-12, atol=1e-12)


@sizes
def test_a_gradient_keeps_the_parameters_hermitian(size: int) -> None:
    parameters = fourier(size)
    assert_hermitian(
        parameters.adjoint(draw(3, 3, size, size), parameters.start(KEYS)), size, tolerance=1e-12
    )


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_decode_scales_a_wave_by_its_frequency(decay: float) -> None:
    parameters = fourier(16, channels=1, decay=decay)
    p = torch.zeros(1, 1, 16, 9, 2, dtype=torch.float64)
    p[0, 0, 4, 3, 0] = 1  # 4 cycles down and 3 right, so |k| = 5; the mirrored coefficient doubles it
    row, column = np.mgrid[:16, :16]
    expected = 2 * 0.25 * 5**-decay * np.cos(2 * np.pi * (4 * row + 3 * column) / 16)
    np.testing.assert_allclose(parameters.decode(p)[0, 0], expected, rtol=0, atol=1e-7)


@sizes
def test_a_band_is_a_ring_of_equal_frequency(size: int) -> None:
    bands = fourier(size, channels=4).bands
    assert bands is not None
    assert bands.dtype == torch.int64
    assert bands.shape == (4, size, size // 2 + 1, 2)
    for row in range(size):
        # Rows past the middle are negative frequencies.
        down = min(row, size - row)
        for right in range(size // 2 + 1):
            assert (bands[:, row, right] == round(np.hypot(down, right))).all()


def test_pixels_are_their_own_parameters() -> None:
    parameters = Pixel(3, 9, 0.5)
    z = parameters.start(KEYS)
    assert z.shape == (3, 3, 9, 9)
    assert z.dtype == torch.float32
    assert parameters.decode(z) is z
    assert parameters.adjoint(z, z) is z
    assert parameters.bands is None
    assert abs(float(z.std()) - 0.5) <= 5 * 0.5 / (2 * z.numel()) ** 0.5


@pytest.mark.parametrize(
    "parameters", [Pixel(3, 9, 0.5), fourier(9), fourier(8)], ids=["pixel", "odd", "even"]
)
def test_a_start_depends_on_its_key_alone(parameters: Pixel | Fourier) -> None:
    together = parameters.start(KEYS)
    assert together.dtype == torch.float32
    for key, picture in zip(KEYS, together, strict=True):
        assert torch.equal(parameters.start([key])[0], picture)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], together[2])


def test_three_channels_are_decorrelated_and_the_longest_column_has_norm_1() -> None:
    matrix = literature(3).color
    norms = matrix.norm(dim=0)
    assert float(norms.max()) == pytest.approx(1, abs=1e-6)
    # The first direction is brightness: the same in all three channels, up to a few percent, and the longest.
    assert norms.argmax() == 0
    assert matrix[:, 0].std() <= 0.05 * matrix[:, 0].mean()
    assert torch.linalg.matrix_rank(matrix) == 3


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_stay_as_they_are(channels: int) -> None:
    assert torch.equal(literature(channels).color, torch.eye(channels))
