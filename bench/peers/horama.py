"""Horama: phases with a fixed magnitude (MACO, Fel et al. 2023) and plain Fourier, NAdam at 1.0.

    pip install --no-deps horama==0.3.0 einops matplotlib

Its defaults make 1280 pixels in 1000 steps of 6 crops, each a quarter of the side, which the network sees at
224 pixels: many minutes per picture, and larger than the pictures compared here. So here the picture has 224
pixels, a crop is about all of it (0.90 to 0.95 of the side), and there are 256 steps of 2 crops; `-full`
takes Horama's own 1000 steps of 6 crops. Its magnitude template is a download; the power law 1/f in all three
decorrelated colors, which natural images roughly follow, replaces it here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from horama import fourier, maco, maco_fv
from torch import Tensor, nn

from bench.peers import seed_all, upto

VERSION = importlib.metadata.version("horama")
NAMES = ("horama-maco", "horama-fourier", "horama-maco-full")
SIZE = 224
_METHODS = {"maco": maco, "fourier": fourier}
_BUDGETS = {"short": (256, 2), "full": (1000, 6)}  # steps, crops
_MEAN, _STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(name: str, network: nn.Module, layer: str, channel: int) -> Tensor:
    """Returns uint8 [3, 224, 224]: Horama's final network input, mapped back to [0, 1] and scaled to 255."""
    _, method, budget = (*name.split("-"), "short")[:3]
    steps, crops = _BUDGETS[budget]
    cut, seen = upto(network, layer), {}
    cut.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.update(output=output))

    def objective(images: Tensor) -> Tensor:
        cut(images)
        return seen["output"][:, channel].mean()

    seed_all(layer, channel)
    with tempfile.TemporaryDirectory() as folder:
        _put_template(folder, SIZE)
        maco_fv.tqdm = functools.partial(maco_fv.tqdm, disable=True)
        image, _alpha = _METHODS[method](
            objective,
            total_steps=steps,
            image_size=SIZE,
            crops_per_iteration=crops,
            box_size=(0.85, 0.90),
            device="cpu",
        )
    shape = (3, 1, 1)
    values = image.detach() * torch.tensor(_STD).view(shape) + torch.tensor(_MEAN).view(shape)
    return values.clamp(0, 1).mul(255).round().to(torch.uint8)


def stepper(
    network: nn.Module, layer: str, channels: Sequence[int], size: int = 1280
) -> Callable[[], object]:
    """Returns a function for one step of MACO with its defaults: one picture, six crops as the batch."""
    (channel,), seen = channels, {}
    device = next(network.parameters()).device
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.update(output=output))
    with tempfile.TemporaryDirectory() as folder:
        _put_template(folder, size)
        magnitude, phase = maco_fv.init_maco_buffer((size, size), std_deviation=1.0)
    magnitude, phase = magnitude.to(device), phase.to(device).requires_grad_()
    nadam, transparency = torch.optim.NAdam([phase], lr=1.0), torch.zeros(3, size, size, device=device)

    def objective(images: Tensor) -> Tensor:
        network(images)
        return seen["output"][:, channel].mean()

    @torch.enable_grad()
    def step() -> object:
        nadam.zero_grad()
        image = maco_fv.maco_preconditioner(magnitude, phase, (-2.5, 2.5), device)
        loss, image = maco_fv.optimization_step(objective, image, (0.20, 0.25), 0.05, 6, SIZE)
        loss.backward()
        transparency.add_(image.grad.abs())
        return nadam.step()

    return step


def _put_template(folder: str, size: int) -> None:
    maco_fv.MACO_SPECTRUM_FILENAME = str(Path(folder) / "power_law.npy")
    np.save(maco_fv.MACO_SPECTRUM_FILENAME, power_law(size))


def power_law(size: int) -> np.ndarray:
    """Returns magnitudes 1/f of a half spectrum, equal in three channels, [3, size, size // 2 + 1]."""
    down, right = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    radius = np.maximum(np.hypot(down, right), 1 / size)
    return np.repeat((1 / radius)[None], 3, 0).astype(np.float32)
