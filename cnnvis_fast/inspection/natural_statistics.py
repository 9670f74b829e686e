"""Measures the colors and the spectrum of a folder of photos."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torchvision.transforms import functional as transforms

from ..errors import InputError
from ..images.photos import read_photo
from ..images.statistics import DARKEST, Statistics, read_statistics
from ..storage.files import told, write_whole

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def measure_statistics(
    folder: str | os.PathLike[str], out: str | os.PathLike[str], size: int = 224
) -> Statistics:
    """Measures the colors and the spectrum of the photos in a folder and writes them to a file.

    The shorter side of every photo is resized to `size` and its center is cropped, without windowing. The
    color covariance is taken over all photos; then z = color^-1 logit(x), with values clamped to 0.02 and
    0.98, and the magnitudes of z's spectrum are averaged.

    Args:
        folder: folder of photos in any format that Pillow reads; subfolders are searched too.
        out: a `.safetensors` file, to be passed as `statistics=` to `maximize` or `atlas`.
        size: side in pixels.

    Raises:
        InputError: the folder holds fewer than 8 photos, one cannot be read, or the file cannot be written.
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
    root = root * torch.where(root.sum(0) < 0, -1.0, 1.0)  # the first direction is brightness, upward
    color = root / root.norm(dim=0).max()
    inverse = torch.linalg.inv(color)
    total = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for path in paths:
        z = torch.einsum("dc,chw->dhw", inverse, torch.logit(_square(path, size), eps=DARKEST))
        total += torch.fft.rfft2(z, norm="forward").abs()
    content = save(  # the key "colour" is that of existing files
        {"colour": color.float().contiguous(), "magnitude": (total / len(paths)).float().contiguous()},
        {"photos": str(len(paths)), "size": str(size)},
    )
    with told(Path(out), "file"):
        write_whole(Path(out), content)
    return read_statistics(out)


def _square(path: Path, size: int) -> Tensor:
    """Returns the center of a photo, float64 [3, size, size] in [0, 1]."""
    picture = read_photo(path)
    assert isinstance(picture, Image.Image)
    resized = transforms.resize(picture.convert("RGB"), [size])
    return transforms.to_tensor(transforms.center_crop(resized, [size, size])).double()
