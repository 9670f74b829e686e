"""Parameterizations of a picture: what the ascent moves, and how it becomes a picture.

Pixel and Fourier offer the same four: `start` (parameters from keys), `decode` (parameters to z), `adjoint`
(gradient of z to gradient of the parameters) and `bands`. z is the picture in decorrelated colour before the
sigmoid. Normalized has no z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .randomness import normals, uniforms

# Square root of the colour covariance of ImageNet, columns scaled to norm <= 1 (Olah et al. 2017, lucid).
_IMAGENET_COLOUR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def colour_matrix(channels: int) -> Tensor:
    """Matrix [C, C] from decorrelated to RGB channels; the identity unless there are three."""
    if channels != 3:
        return torch.eye(channels)
    matrix = torch.tensor(_IMAGENET_COLOUR)
    return matrix / matrix.norm(dim=0).max()


class Normalized:
    """The parameters are the network's input itself, [B, C, H, W]: values in [0, 1] minus mean, over std.

    Neither colour nor logistic function nor warp stand between them and the network, so this is not for the
    ops that render: the loop hands p on as it is.
    """

    def __init__(self, size: int, mean: Tensor, std: Tensor) -> None:
        self.shape = (len(mean), size, size)
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.bands: Tensor | None = None

    def start(self, keys: Sequence[str]) -> Tensor:
        """Grey noise: whole numbers from 125 to 189 of 255, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        draws = torch.stack([torch.from_numpy(uniforms(f"{key}/start", count)) for key in keys])
        return self.normalized((125 + 65 * draws).floor().view(-1, *self.shape) / 255)

    def normalized(self, pictures: Tensor) -> Tensor:
        """Pictures in [0, 1] to parameters, float32."""
        return ((pictures.to(self.mean.device) - self.mean) / self.std).float()

    def pictures(self, p: Tensor) -> Tensor:
        """Parameters to pictures; what the ascent drove out of [0, 1] is left there."""
        return p * self.std + self.mean


class Pixel:
    """The parameters are z itself, [B, C, H, W]."""

    def __init__(self, channels: int, size: int, noise: float) -> None:
        self.shape = (channels, size, size)
        self.noise = noise
        self.bands: Tensor | None = None

    def start(self, keys: Sequence[str]) -> Tensor:
        """Normal noise, float32 [B, C, H, W]."""
        count = self.shape[0] * self.shape[1] * self.shape[2]
        numbers = [torch.from_numpy(normals(f"{key}/start", count)).float() for key in keys]
        return torch.stack(numbers).view(-1, *self.shape) * self.noise

    def decode(self, p: Tensor) -> Tensor:
        """Parameters to z."""
        return p

    def adjoint(self, dz: Tensor) -> Tensor:
        """Gradient of z to gradient of the parameters."""
        return dz


# Lengths whose complex-to-real transform has other bits on one thread than on several (MKL, as measured).
_UNSTEADY = (8, 16, 32, 64)


class Fourier:
    """Coefficients of the half spectrum, real and imaginary parts apart: [B, C, H, W // 2 + 1, 2].

    z = irfft2(scale * p, norm="forward") with scale = amplitude * max(|k|, 1)^-decay and k in cycles per
    image (Olah et al. 2017). Seen as a map of real numbers, irfft2 counts every column of the half spectrum
    twice but the first and, at even width, the last, so its adjoint is rfft2 with weights 1, 2, ..., 2, 1.
    """

    def __init__(
        self, channels: int, size: int, noise: float, decay: float, amplitude: float, device: torch.device
    ) -> None:
        self.size, self.channels, self.noise = size, channels, noise
        down = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
        right = torch.fft.rfftfreq(size, 1 / size, dtype=torch.float64)
        radius = (down[:, None].square() + right.square()).sqrt()
        scale = amplitude * radius.clamp_min(1).pow(-decay)
        weight = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
        weight[0] = 1
        if size % 2 == 0:
            weight[-1] = 1
        # Twice side by side, for the real and the imaginary part: far faster than a complex product.
        self.scale = torch.stack((scale, scale), -1).float().to(device)
        self.weight = weight.float().to(device)
        self.adjoint_scale = self.scale * self.weight[:, None]
        ring = radius.round().long()[None, :, :, None]
        self.bands: Tensor | None = ring.expand(channels, -1, -1, 2).contiguous().to(device)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Normal noise in every coefficient, float32 [B, C, H, W // 2 + 1, 2]."""
        shape = (self.channels, self.size, self.size // 2 + 1, 2)
        count = shape[0] * shape[1] * shape[2] * shape[3]
        spectra = [torch.from_numpy(normals(f"{key}/start", count)).float().view(shape) for key in keys]
        p = torch.stack(spectra) * self.noise
        # The columns that stand for themselves must be Hermitian: backends differ in what they ignore.
        for column in {0, self.size // 2} if self.size % 2 == 0 else {0}:
            values = torch.view_as_complex(p[..., column, :].contiguous())
            mirrored = values.flip(-1).roll(1, -1).conj()
            p[..., column, :] = torch.view_as_real((values + mirrored) * 0.5**0.5)
        return p

    def decode(self, p: Tensor) -> Tensor:
        """Parameters to z [B, C, H, W]."""
        spectrum = torch.view_as_complex(p * self.scale)
        if self.size in _UNSTEADY:  # the same sum as the real part of a complex transform
            columns = torch.fft.ifft(spectrum * self.weight, dim=-2, norm="forward")
            return torch.fft.ifft(columns, n=self.size, norm="forward").real.contiguous()
        return torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="forward").contiguous()

    def adjoint(self, dz: Tensor) -> Tensor:
        """Gradient of z to gradient of the parameters."""
        return torch.view_as_real(torch.fft.rfft2(dz)) * self.adjoint_scale
