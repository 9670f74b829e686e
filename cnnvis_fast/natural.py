"""What natural pictures are like: how their colours go together and how their spectra fall.

Measured from a folder of photos by `measure_statistics`, or taken from the literature: the colour covariance
of ImageNet (Olah et al. 2017) and amplitude spectra that fall as 1 / |k| (Field 1987; van der Schaaf and van
Hateren 1996 found exponents of 0.94 +- 0.15).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import functional as transforms

from .errors import InputError, first_line
from .files import told, write_whole
from .photos import read_photo
from .spectra import column_weights, frequencies

# Square root of the colour covariance of ImageNet (Olah et al. 2017, lucid): columns are directions in RGB.
_IMAGENET_COLOUR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_EXPONENT = 1.0
_DARKEST, _LIGHTEST = 0.02, 0.98  # the logistic function has no inverse at 0 and 1
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Statistics:
    """Colours and spectrum of a set of pictures.

    Attributes:
        colour: [C, C] from decorrelated to real channels, longest column of norm 1.
        magnitude: [C, S, S // 2 + 1], mean magnitude of the half spectrum of z (the picture before the
            logistic function, in decorrelated colour), as `torch.fft.rfft2(norm="forward")` orders it; None
            for 1 / |k|.
        digest: of a measured file; "" for the literature's.
    """

    colour: Tensor
    magnitude: Tensor | None = None
    digest: str = ""

    def magnitude_at(self, size: int) -> Tensor:
        """The magnitude at another size, float32 [C, size, size // 2 + 1].

        Spectra keep to cycles per image. What was not measured falls on as 1 / |k|.
        """
        if self.magnitude is None:
            return _power_law(self.colour, size)
        down, right = torch.broadcast_tensors(*frequencies(size))
        measured = self.magnitude.shape[1]
        if measured == size:
            return self.magnitude.clone()
        limit = (measured - 1) // 2
        largest = torch.maximum(down.abs(), right.abs())
        within = (limit / largest.clamp_min(1)).clamp_max(1)
        # Rows in the order of their frequency, so that neighbours lie side by side.
        ordered = torch.roll(self.magnitude, measured // 2, dims=1)
        row = down * within + measured // 2
        grid = torch.stack((right * within / (ordered.shape[2] - 1), row / (measured - 1)), -1) * 2 - 1
        found = grid_sample(ordered[None].double(), grid[None], align_corners=True)[0]
        return (found * within.pow(_EXPONENT)).float()


def literature(channels: int) -> Statistics:
    """What is known of natural pictures in general; other than three channels count as independent."""
    if channels != 3:
        return Statistics(torch.eye(channels))
    matrix = torch.tensor(_IMAGENET_COLOUR)
    return Statistics(matrix / matrix.norm(dim=0).max())


def grey(channels: int) -> Tensor:
    """A colour matrix that makes all channels alike: one direction is brightness, the others are nothing."""
    matrix = torch.zeros(channels, channels)
    matrix[:, 0] = channels**-0.5
    return matrix


def measure_statistics(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], size: int = 224
) -> Statistics:
    """Measures the colours and the spectrum of the photos in a folder and writes them to a file.

    Every photo is resized to `size` at its shorter side and its centre cut out, without windowing. Its
    colours add to a covariance; then z = colour^-1 logit(x), values held within 0.02 and 0.98, and the
    magnitudes of z's spectrum are averaged.

    Args:
        folder: photos of all kinds that Pillow reads, found in subfolders too.
        out: a `.safetensors` file; `statistics=` of `maximize` and `atlas` takes it.
        size: side in pixels.

    Raises:
        InputError: the folder has fewer than 8 photos, one cannot be read, or the file cannot be written.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if len(paths) < 8:
        raise InputError(f"{os.fspath(folder)} holds {len(paths)} photos: a spectrum needs 8 or more")
    if not 16 <= size <= 1024:
        raise InputError(f"`size` must be from 16 to 1024, got {size}")
    if Path(out).suffix != ".safetensors":
        raise InputError(f"`out` must end in .safetensors, got {os.fspath(out)}")
    first, second = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for path in paths:
        x = _square(path, size).flatten(1)
        first += x.mean(1)
        second += x @ x.T / x.shape[1]
    mean = first / len(paths)
    values, vectors = torch.linalg.eigh(second / len(paths) - mean.outer(mean))
    root = vectors * values.clamp_min(1e-8).sqrt()
    root = root.flip(1)  # strongest first
    root = root * torch.where(root.sum(0) < 0, -1.0, 1.0)  # brightness upwards
    colour = root / root.norm(dim=0).max()
    inverse = torch.linalg.inv(colour)
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for path in paths:
        z = torch.einsum("dc,chw->dhw", inverse, torch.logit(_square(path, size), eps=_DARKEST))
        total += torch.fft.rfft2(z, norm="forward").abs()
    content = save(
        {"colour": colour.float().contiguous(), "magnitude": (total / len(paths)).float().contiguous()},
        {"photos": str(len(paths)), "size": str(size)},
    )
    with told(Path(out), "file"):
        write_whole(Path(out), content)
    return read_statistics(out)


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Reads a file of `measure_statistics`.

    Raises:
        InputError: there is none, or it is no such file.
    """
    try:
        content = Path(path).read_bytes()
        with safe_open(os.fspath(path), "pt") as file:
            colour, magnitude = file.get_tensor("colour"), file.get_tensor("magnitude")
    except Exception as error:  # any exception: foreign bytes fail in many ways
        raise InputError(
            f"{os.fspath(path)} is no file of statistics ({first_line(error)}): make one with "
            "`cnnvis-fast measure`"
        ) from error
    size = magnitude.shape[1] if magnitude.ndim == 3 else 0
    whole = bool(colour.isfinite().all() and magnitude.isfinite().all() and (magnitude >= 0).all())
    if colour.shape != (3, 3) or magnitude.shape != (3, size, size // 2 + 1) or size < 16 or not whole:
        raise InputError(
            f"{os.fspath(path)} holds no statistics of pictures: make one with `cnnvis-fast measure`"
        )
    return Statistics(colour.float(), magnitude.float(), hashlib.sha256(content).hexdigest())


def natural_pictures(statistics: Statistics, size: int, phases: Tensor) -> Tensor:
    """Pictures with natural colours and spectrum and given phases.

    Args:
        statistics: of what is natural.
        size: side in pixels.
        phases: radians, [N, C, size, size // 2 + 1].

    Returns:
        float32 [N, C, size, size] in [0, 1].
    """
    magnitude = statistics.magnitude_at(size)
    z = torch.fft.irfft2(torch.polar(magnitude.expand_as(phases), phases), s=(size, size), norm="forward")
    return torch.sigmoid(torch.einsum("cd,ndhw->nchw", statistics.colour, z))


def _power_law(colour: Tensor, size: int) -> Tensor:
    """1 / |k| with the contrast of natural pictures.

    Around grey the logistic function has slope 1/4, so colours that ImageNet spreads by its covariance's root
    R come from z spread by 4 times R; in decorrelated colour, R being `longest` times the colour matrix, that
    is 4 times `longest` in every direction.
    """
    down, right = frequencies(size)
    shape = down.hypot(right).clamp_min(1).pow(-_EXPONENT)
    power = (shape.square() * column_weights(size)).sum() - shape[0, 0] ** 2
    longest = float(torch.tensor(_IMAGENET_COLOUR).norm(dim=0).max())
    magnitude = shape * (4 * longest / power.sqrt())
    # The mean differs less from picture to picture than slow waves do.
    magnitude[0, 0] = 0.5 * magnitude[0, 1]
    return magnitude.float().expand(len(colour), -1, -1).clone()


def _square(path: Path, size: int) -> Tensor:
    """The centre of a photo, float64 [3, size, size] in [0, 1]."""
    picture = read_photo(path)
    assert isinstance(picture, Image.Image)
    resized = transforms.resize(picture.convert("RGB"), [size])
    return transforms.to_tensor(transforms.center_crop(resized, [size, size])).double()
