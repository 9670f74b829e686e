"""Checks that the preprocessing matches the data that the network's batch norms were trained on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..images.statistics import literature, natural_pictures
from ..networks.hooks import StopForward, hooked, run_until_stopped
from ..networks.preprocessing import Source
from ..networks.probe import evaluating
from ..randomness import uniforms

_FAR = 6.0  # standard deviations by which the mean of a batch norm's input may differ from the training's
_FACTOR = 8.0  # factor by which its variance may differ


@torch.no_grad()
def preprocessing_note(model: nn.Module, source: Source, size: int) -> str | None:
    """Returns a note if natural pictures look unlike the training pictures to the first batch norm.

    The pictures have natural colors and spectrum. The batch norm's running mean and variance are those of the
    training pictures, so wrong `mean` and `std`, or values from 0 to 255, show there. Returns None if all is
    well, or if the network has no trained batch norm.
    """
    channels = len(source.mean)
    count = channels * size * (size // 2 + 1)
    phases = torch.stack([torch.from_numpy(uniforms(f"preprocessing/{k}", count)).float() for k in range(4)])
    phases = (2 * math.pi * phases).view(4, channels, size, size // 2 + 1)
    pictures = natural_pictures(literature(channels), size, phases)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (source.mean, source.std))

    found: list[tuple[nn.Module, Tensor]] = []

    def stop(_name: str, norm: nn.Module, inputs: Any) -> None:
        found.append((norm, inputs[0]))
        raise StopForward

    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    parameter = next(model.parameters(), torch.zeros(()))
    x = ((pictures - mean) / std).to(parameter.device, parameter.dtype)
    try:
        with evaluating(model), hooked(norms, stop, before=True):
            run_until_stopped(model, x)
    except Exception:  # any exception: cutting the trunk reports networks that do not run
        return None
    return _mismatch(found[0][0], found[0][1].float()) if found else None


def _mismatch(norm: Any, x: Tensor) -> str | None:
    if norm.running_mean is None or bool((norm.running_mean == 0).all() & (norm.running_var == 1).all()):
        return None  # never trained
    found_mean, found = x.mean((0, 2, 3)), x.var((0, 2, 3))
    spread = (norm.running_var + norm.eps).sqrt()
    away = float(((found_mean - norm.running_mean).abs() / spread).median())
    factor = float(((found + norm.eps) / spread.square()).log().median().exp())
    if away <= _FAR and 1 / _FACTOR <= factor <= _FACTOR:
        return None
    return (
        "the preprocessing looks wrong: natural pictures reach the first batch norm with "
        f"{factor:.2g} times the variance that it was trained on and a mean {away:.2g} standard deviations "
        "away; pass the mean= and std= of the training, for pictures in [0, 1]"
    )
