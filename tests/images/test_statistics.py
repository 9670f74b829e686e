"""Colors and spectra of natural pictures: measured from drawn photos, and at other sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import cnnvis_fast as cv
from cnnvis_fast.images.statistics import gray, literature, natural_pictures, read_statistics
from cnnvis_fast.inspection.natural_statistics import measure_statistics


def pink(count: int, size: int, exponent: float) -> torch.Tensor:
    """Pictures whose magnitudes fall as |k|^-exponent, [N, 3, size, size] in [0, 1]; red goes with green."""
    generator = torch.Generator().manual_seed(0)
    down, right = torch.fft.fftfreq(size, 1 / size), torch.fft.rfftfreq(size, 1 / size)
    radius = (down[:, None].square() + right.square()).sqrt().clamp_min(1)
    spectrum = torch.polar(
        radius.pow(-exponent), 6.2832 * torch.rand(count, 2, size, size // 2 + 1, generator=generator)
    )
    waves = torch.fft.irfft2(spectrum, s=(size, size), norm="forward")
    waves = waves / waves.std()
    red = waves[:, 0] + 0.3 * waves[:, 1]
    mixed = torch.stack((red, red, waves[:, 0] - 0.6 * waves[:, 1]), 1) * 0.09 + 0.5
    return mixed.clamp(0.03, 0.97)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(pink(12, 64, 1.3)):
        pixels = picture.mul(255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path / f"{number}.png")
    return path


def test_statistics_are_those_of_the_photos(folder, tmp_path):
    found = measure_statistics(folder, tmp_path / "s.safetensors", size=64)
    pixels = (
        torch.stack([torch.from_numpy(np.asarray(Image.open(p))) for p in sorted(folder.iterdir())]).double()
        / 255
    )
    centerd = pixels.flatten(0, 2) - pixels.flatten(0, 2).mean(0)
    covariance = centerd.T @ centerd / len(centerd)
    again = found.color.double() @ found.color.double().T
    torch.testing.assert_close(again / again.trace(), covariance / covariance.trace(), rtol=1e-3, atol=1e-4)
    assert found.color.norm(dim=0).max() == pytest.approx(1)
    assert found.color[:, 0].min() > 0  # brightness upwards
    magnitude = found.magnitude_at(64)
    slope = np.polyfit(np.log(np.arange(2, 20)), np.log(magnitude[0, 0, 2:20].numpy()), 1)[0]
    assert slope == pytest.approx(-1.3, abs=0.25)
    assert read_statistics(tmp_path / "s.safetensors").digest == found.digest


def test_a_spectrum_keeps_to_cycles_per_image_at_other_sizes(folder, tmp_path):
    found = measure_statistics(folder, tmp_path / "s.safetensors", size=64)
    own, larger, smaller = (found.magnitude_at(size) for size in (64, 96, 33))
    assert larger.shape == (3, 96, 49)
    torch.testing.assert_close(larger[:, :20, :20], own[:, :20, :20], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(larger[:, -20:, :20], own[:, -20:, :20], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(smaller[:, :16, :16], own[:, :16, :16], rtol=1e-3, atol=1e-5)
    # Beyond what was measured it falls on as 1 / |k|.
    assert float(larger[0, 0, 45]) == pytest.approx(float(own[0, 0, 31]) * 31 / 45, rel=1e-3)


def test_the_literatures_pictures_have_natural_contrast_and_spectrum():
    phases = 6.2832 * torch.rand(8, 3, 64, 33, generator=torch.Generator().manual_seed(0)) - 3.1416
    pictures = natural_pictures(literature(3), 64, phases)
    assert 0.12 < float(pictures.std()) < 0.35  # ImageNet's values spread by 0.23
    power = torch.fft.fft2(pictures.mean(1) - 0.5).abs().square().mean(0)
    slope = np.polyfit(np.log(np.arange(2, 20)), np.log(power[0, 2:20].numpy()), 1)[0]
    assert slope == pytest.approx(-2, abs=0.5)


def test_measured_statistics_are_used_and_are_part_of_the_job(folder, tmp_path):
    file = tmp_path / "s.safetensors"
    digest = measure_statistics(folder, file, size=64).digest
    options = {"steps": 2, "size": 40, "parameters": "maco", "progress": False}
    plain = cv.maximize("texturenet", "conv4", [1], **options)
    own = cv.maximize("texturenet", "conv4", [1], statistics=str(file), **options)
    assert own.job["config"]["statistics"] == digest
    assert not torch.equal(own.pixels, plain.pixels)


def test_gray_has_one_direction():
    assert torch.linalg.matrix_rank(gray(3)) == 1
    assert float(gray(3)[:, 0].norm()) == pytest.approx(1)


def test_what_is_no_folder_of_photos_is_refused(tmp_path, folder):
    (tmp_path / "few").mkdir()
    with pytest.raises(cv.InputError, match="0 photos"):
        measure_statistics(tmp_path / "few", tmp_path / "s.safetensors")
    with pytest.raises(cv.InputError, match="`out`"):
        measure_statistics(folder, tmp_path / "s.txt", size=64)
    for number in range(8):
        (tmp_path / "few" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(cv.InputError, match="not a photo"):
        measure_statistics(tmp_path / "few", tmp_path / "s.safetensors")
    assert not (tmp_path / "s.safetensors").exists()


@pytest.mark.parametrize("content", ["text", "other tensors", "negative"])
def test_what_is_no_file_of_statistics_is_refused(content, tmp_path):
    path = tmp_path / "s.safetensors"
    if content == "text":
        path.write_text("no tensors")
    elif content == "other tensors":
        save_file({"colour": torch.eye(3), "magnitude": torch.ones(3, 20, 20)}, path)
    else:
        save_file({"colour": torch.eye(3), "magnitude": -torch.ones(3, 32, 17)}, path)
    with pytest.raises(cv.InputError, match="statistics"):
        cv.maximize("texturenet", "conv4", [1], statistics=str(path), steps=1, progress=False)
    with pytest.raises(cv.InputError, match="statistics"):
        cv.maximize("texturenet", "conv4", [1], statistics=str(tmp_path / "none"), steps=1, progress=False)
