"""Holds statistics of natural images: how their colors correlate and how their spectra fall off.

They are measured from a folder of photos by `measure_statistics`, or taken from the literature: the color
covariance of ImageNet (Olah et al. 2017) and amplitude spectra that fall as 1 / |k| (Field 1987; van der
Schaaf and van Hateren 1996 found exponents of 0.94 +- 0.15).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import grid_sample

from ..errors import InputError, first_line
from .spectra import column_weights, frequencies

# Square root of the color covariance of ImageNet (Olah et al. 2017, lucid): columns are directions in RGB.
_IMAGENET_COLOR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_EXPONENT = 1.0
DARKEST = 0.02  # and 1 - DARKEST is the lightest: the logistic function has no inverse at 0 and 1


@dataclass(frozen=True)
class Statistics:
    """Colors and spectrum of a set of images.

    Attributes:
        color: [C, C], maps decorrelated to real channels; its longest column has norm 1.
        magnitude: [C, S, S // 2 + 1], mean magnitude of the half spectrum of z (the image before the logistic
            function, in decorrelated color) in the order of `torch.fft.rfft2(norm="forward")`; None for
            1 / |k|.
        digest: SHA-256 of the file if measured; "" for statistics from the literature.
    """

    color: Tensor
    magnitude: Tensor | None = None
    digest: str = ""

    def magnitude_at(self, size: int) -> Tensor:
        """Returns the magnitude at another size, float32 [C, size, size // 2 + 1].

        Spectra are functions of cycles per image. Beyond the measured frequencies they fall as 1 / |k|.
        """
        if self.magnitude is None:
            return _power_law(self.color, size)
        down, right = torch.broadcast_tensors(*frequencies(size))
        measured = self.magnitude.shape[1]
        if measured == size:
            return self.magnitude.clone()
        limit = (measured - 1) // 2
        largest = torch.maximum(down.abs(), right.abs())
        within = (limit / largest.clamp_min(1)).clamp_max(1)
        # Sorts rows by frequency, so that neighboring frequencies are adjacent.
        ordered = torch.roll(self.magnitude, measured // 2, dims=1)
        row = down * within + measured // 2
        grid = torch.stack((right * within / (ordered.shape[2] - 1), row / (measured - 1)), -1) * 2 - 1
        found = grid_sample(ordered[None].double(), grid[None], align_corners=True)[0]
        return (found * within.pow(_EXPONENT)).float()


def literature(channels: int) -> Statistics:
    """Returns general statistics of natural images; unless there are three channels, they are independent."""
    if channels != 3:
        return Statistics(torch.eye(channels))
    matrix = torch.tensor(_IMAGENET_COLOR)
    return Statistics(matrix / matrix.norm(dim=0).max())


def gray(channels: int) -> Tensor:
    """Returns a color matrix that makes all channels equal: one direction is brightness, the rest is zero."""
    matrix = torch.zeros(channels, channels)
    matrix[:, 0] = channels**-0.5
    return matrix


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Reads a file that `measure_statistics` wrote.

    Raises:
        InputError: there is no such file, or it does not hold statistics.
    """
    try:
        content = Path(path).read_bytes()
        with safe_open(os.fspath(path), "pt") as file:  # the key "colour" is that of existing files
            color, magnitude = file.get_tensor("colour"), file.get_tensor("magnitude")
    except Exception as error:  # any exception: foreign bytes fail in many ways
        raise InputError(
            f"{os.fspath(path)} is not a file of statistics ({first_line(error)}): make one with "
            "`cnnvis-fast measure`"
        ) from error
    size = magnitude.shape[1] if magnitude.ndim == 3 else 0
    whole = bool(color.isfinite().all() and magnitude.isfinite().all() and (magnitude >= 0).all())
    if color.shape != (3, 3) or magnitude.shape != (3, size, size // 2 + 1) or size < 16 or not whole:
        raise InputError(
            f"{os.fspath(path)} does not hold statistics of images: make it with `cnnvis-fast measure`"
        )
    return Statistics(color.float(), magnitude.float(), hashlib.sha256(content).hexdigest())


def natural_pictures(statistics: Statistics, size: int, phases: Tensor) -> Tensor:
    """Returns images with natural colors and spectrum and given phases.

    Args:
        statistics: the natural statistics.
        size: side in pixels.
        phases: phases in radians, [N, C, size, size // 2 + 1].

    Returns:
        float32 [N, C, size, size] in [0, 1].
    """
    magnitude = statistics.magnitude_at(size)
    z = torch.fft.irfft2(torch.polar(magnitude.expand_as(phases), phases), s=(size, size), norm="forward")
    return torch.sigmoid(torch.einsum("cd,ndhw->nchw", statistics.color, z))


def _power_law(color: Tensor, size: int) -> Tensor:
    """Returns 1 / |k| with the contrast of natural images.

    Near gray the logistic function has slope 1/4, so a color spread of R, the root of ImageNet's covariance,
    corresponds to a spread of 4 R in z. As R is `longest` times the color matrix, the spread in decorrelated
    color is 4 times `longest` in every direction.
    """
    down, right = frequencies(size)
    shape = down.hypot(right).clamp_min(1).pow(-_EXPONENT)
    power = (shape.square() * column_weights(size)).sum() - shape[0, 0] ** 2
    longest = float(torch.tensor(_IMAGENET_COLOR).norm(dim=0).max())
    magnitude = shape * (4 * longest / power.sqrt())
    # The mean varies less between images than low frequencies do.
    magnitude[0, 0] = 0.5 * magnitude[0, 1]
    return magnitude.float().expand(len(color), -1, -1).clone()
