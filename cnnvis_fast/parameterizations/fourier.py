"""Pictures whose parameters are Fourier coefficients, or the phases of coefficients of fixed magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from ..config import Config
from ..images.spectra import column_weights, frequencies
from ..randomness import normals, uniforms
from .parameterization import Canvas, Parameterization

# Lengths at which a complex-to-real transform gives other bits on one thread than on several (MKL, measured).
_UNSTEADY = (8, 16, 32, 64)


class Fourier(Parameterization):
    """Coefficients of the half spectrum, real and imaginary parts separate: [B, C, H, W // 2 + 1, 2].

    z = irfft2(scale * p, norm="forward") with scale = amplitude * max(|k|, corner)^-decay and k in cycles per
    image (Olah et al. 2017, with corner 1). A cutoff multiplies scale by (1 + (f / cutoff)^8)^-1/2, a
    Butterworth low-pass filter, with f in cycles per pixel. As a map of real numbers, irfft2 counts every
    column of the half spectrum twice except the first and, at even width, the last, so its adjoint is rfft2
    with weights 1, 2, ..., 2, 1.
    """

    name = "fourier"

    def __init__(
        self,
        channels: int,
        size: int,
        noise: float,
        decay: float,
        amplitude: float,
        device: torch.device,
        corner: float = 1.0,
        cutoff: float = 0.0,
    ) -> None:
        self.size, self.channels, self.noise = size, channels, noise
        down, right = frequencies(size)
        radius = (down.square() + right.square()).sqrt()
        scale = amplitude * radius.clamp_min(corner).pow(-decay)
        if cutoff:
            scale = scale / (1 + (radius / size / cutoff).pow(8)).sqrt()
        weight = column_weights(size)
        # Repeated for the real and the imaginary part: far faster than a complex product.
        self.scale = torch.stack((scale, scale), -1).float().to(device)
        self.weight = weight.float().to(device)
        self.adjoint_scale = self.scale * self.weight[:, None]
        self.radius = radius.float().to(device)
        ring = radius.round().long()[None, :, :, None]
        self.bands = ring.expand(channels, -1, -1, 2).contiguous().to(device)

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the coefficients for the pictures of a configuration."""
        decay, size = config.decay, canvas.size
        # A ring in cycles per pixel has coefficients in proportion to the area: this keeps its contrast.
        amplitude = config.amplitude * (size / 224) ** (decay - 1)
        channels, device = len(canvas.mean), canvas.mean.device
        return cls(channels, size, config.noise, decay, amplitude, device, config.corner, config.cutoff)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws normal noise for every coefficient, float32 [B, C, H, W // 2 + 1, 2]."""
        shape = (self.channels, self.size, self.size // 2 + 1, 2)
        count = shape[0] * shape[1] * shape[2] * shape[3]
        spectra = [torch.from_numpy(normals(f"{key}/start", count)).float().view(shape) for key in keys]
        p = torch.stack(spectra) * self.noise
        # Columns that are their own mirror image must be Hermitian: backends differ in what they ignore.
        for column in {0, self.size // 2} if self.size % 2 == 0 else {0}:
            values = torch.view_as_complex(p[..., column, :].contiguous())
            mirrored = values.flip(-1).roll(1, -1).conj()
            p[..., column, :] = torch.view_as_real((values + mirrored) * 0.5**0.5)
        return p

    def decode(self, p: Tensor) -> Tensor:
        """Maps parameters to z [B, C, H, W]."""
        spectrum = torch.view_as_complex(p * self.scale)
        if self.size in _UNSTEADY:  # the same sum as the real part of a complex transform
            columns = torch.fft.ifft(spectrum * self.weight, dim=-2, norm="forward")
            return torch.fft.ifft(columns, n=self.size, norm="forward").real.contiguous()
        return torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="forward").contiguous()

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Maps the gradient of z to the gradient of the parameters."""
        return torch.view_as_real(torch.fft.rfft2(dz)) * self.adjoint_scale

    def encode(self, z: Tensor) -> Tensor:
        """Returns the parameters whose picture is z."""
        return torch.view_as_real(torch.fft.rfft2(z, norm="forward")) / self.scale

    def soften_(self, p: Tensor, radius: float) -> None:
        """Blurs in place with a Gaussian of standard deviation `radius` pixels, wrapping around the edges."""
        p *= torch.exp(-2 * (math.pi * radius / self.size * self.radius).square())[..., None]


class Phase(Parameterization):
    """Phases of the half spectrum under a fixed magnitude: [B, C, H, W // 2 + 1] (MACO, Fel et al. 2023).

    z = irfft2(magnitude * exp(i p), norm="forward"), where the columns that are their own mirror image are
    made Hermitian. With A = rfft2(dz), its columns weighted 1, 2, ..., 2, 1, dp = magnitude * (cos(p) Im A -
    sin(p) Re A).
    """

    name = "maco"

    def __init__(self, magnitude: Tensor, device: torch.device) -> None:
        channels, self.size, _ = magnitude.shape
        self.shape = tuple(magnitude.shape)
        fourier = Fourier(channels, self.size, 0.0, 0.0, 1.0, device)
        self.fourier, self.magnitude = fourier, magnitude.to(device)
        self.adjoint_magnitude = self.magnitude * fourier.weight

    @classmethod
    def make(cls, config: Config, canvas: Canvas) -> Self:
        """Makes the phases for the pictures of a configuration, under the magnitudes of its statistics."""
        return cls(canvas.statistics.magnitude_at(canvas.size), canvas.mean.device)

    def start(self, keys: Sequence[str]) -> Tensor:
        """Draws phases uniformly from -pi to pi, float32."""
        count = math.prod(self.shape)
        turns = [torch.from_numpy(uniforms(f"{key}/start", count)).float() for key in keys]
        return (2 * math.pi) * torch.stack(turns).view(-1, *self.shape) - math.pi

    def decode(self, p: Tensor) -> Tensor:
        """Maps parameters to z [B, C, H, W]."""
        spectrum = torch.stack((p.cos() * self.magnitude, p.sin() * self.magnitude), -1)
        for column in (0, self.size // 2) if self.size % 2 == 0 else (0,):
            own = spectrum[..., column, :]
            mirrored = own.flip(-2).roll(1, -2) * own.new_tensor([1.0, -1.0])
            spectrum[..., column, :] = (own + mirrored) / 2
        return self.fourier.decode(spectrum)

    def adjoint(self, dz: Tensor, p: Tensor) -> Tensor:
        """Maps the gradient of z to the gradient of the parameters."""
        a = torch.fft.rfft2(dz)
        return self.adjoint_magnitude * (p.cos() * a.imag - p.sin() * a.real)

    def encode(self, z: Tensor) -> Tensor:
        """Returns the phases of z."""
        return torch.fft.rfft2(z).angle()
