"""Finds out what a network reads by running it: how many channels, at which size."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, first_line
from .hooks import StopForward, hooked, run_until_stopped

USUAL_SIZE = 224
_ANOTHER_SIZE = 192
_SIZES = (USUAL_SIZE, 32, 64, 96, 28, 128, 256, 299, 384, 48, 160, 192, 240, 320, 512, 16, 8)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode without gradients; restores every module's mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def input_channels(model: nn.Module) -> int:
    """Returns the number of channels that the network reads: that of the convolution that runs first.

    Without convolutions, the first linear layer determines it if the network runs on square pictures that,
    flattened, have as many values as the layer has inputs: 28 x 28 x 1 for 784 features. Otherwise 3.
    """
    defined_first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if defined_first is None:
        filling = _filling(model)
        return filling[0] if filling and runs(model, *filling) else 3
    # Modules before it rarely depend on the number of channels; if they do, the first one defined counts.
    first = _first_convolution(model, 3)
    return (defined_first if first is None else first[0]).in_channels


def input_size(model: nn.Module, channels: int) -> int:
    """Returns the side in pixels of pictures that the network runs on: 224 if possible.

    Otherwise the first usual size at which it runs, and a warning says so. If it runs at none of them, 224:
    the next step then reports why it does not run.
    """
    filling = _filling(model)
    sizes = [*_SIZES[:1], *([filling[1]] if filling else []), *_SIZES[1:]]
    size = next((size for size in sizes if runs(model, channels, size)), USUAL_SIZE)
    if size != USUAL_SIZE:
        warnings.warn(
            f"{type(model).__name__} does not run at {USUAL_SIZE} px: taking {size} px, where it does; pass "
            "size= to choose another",
            stacklevel=4,
        )
    return size


def runs(model: nn.Module, channels: int, size: int) -> bool:
    """Returns whether a network runs on one square picture of zeros."""
    parameter = next(model.parameters(), torch.zeros(()))
    with contextlib.suppress(Exception), evaluating(model):  # any exception: this is the user's network
        model(torch.zeros(1, channels, size, size, dtype=parameter.dtype, device=parameter.device))
        return True
    return False


def runs_at_many_sizes(model: nn.Module, channels: int, size: int) -> bool:
    """Returns whether `input_size` had a choice: the network runs at the usual size and at another one."""
    return size == USUAL_SIZE and runs(model, channels, _ANOTHER_SIZE)


def refuse_other_channels(model: nn.Module, channels: int) -> None:
    """Refuses preprocessing for a number of channels that the network does not read.

    If the convolution defined first reads that many, nothing is run. Otherwise the input that the
    convolution that runs first receives is checked, since modules before it may change the channels.

    Raises:
        InputError: the convolution that runs first receives a different number of channels than it reads.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels == channels:
        return
    ran_first = _first_convolution(model, channels)
    if ran_first is None:
        return
    module, inputs = ran_first
    if inputs and inputs[0].shape[-3] != (read := module.in_channels):
        raise InputError(
            f"`mean` has {channels} value{'s' * (channels > 1)}, the network reads {read} "
            f"channel{'s' * (read > 1)}: pass one value of mean and std per channel"
        )


def _first_convolution(model: nn.Module, channels: int) -> tuple[nn.Conv2d, tuple[Tensor, ...]] | None:
    """Returns the convolution that runs first on a picture with that many channels, and its inputs.

    None if the network fails before any convolution runs.
    """
    found: list[tuple[Any, Any]] = []

    def stop(_name: str, module: nn.Module, inputs: Any) -> None:
        found.append((module, inputs))
        raise StopForward

    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    with hooked(convolutions, stop, before=True):
        run_until_stopped(runs, model, channels, 64)
    return found[0] if found else None


def refuse_other_dimensions(model: nn.Module) -> None:
    """Refuses networks that read sound or video.

    Raises:
        InputError: the first convolution is not two-dimensional.
    """
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    first = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if isinstance(first, nn.Conv1d | nn.Conv3d):
        kind, reads = (
            type(first).__name__,
            "sequences" if isinstance(first, nn.Conv1d) else "video or volumes",
        )
        raise InputError(
            f"{type(model).__name__} starts with a {kind} and so reads {reads}: only networks that read "
            "pictures [N, channels, height, width] are supported; wrap one frame in a module of your own"
        )


def _filling(model: nn.Module) -> tuple[int, int] | None:
    """Returns channels and side of square pictures that, flattened, fit the first linear layer, or None."""
    linear = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    if linear is None or any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    for channels in (3, 1, 4, 2):
        side = math.isqrt(linear.in_features // channels)
        if side >= 8 and channels * side * side == linear.in_features:
            return channels, side
    return None


def run_on(module: nn.Module, values: Tensor, name: str) -> Any:
    """Runs a module and turns any error in it into one sentence.

    Raises:
        InputError: the module does not run on these values.
    """
    try:
        return module(values)
    except Exception as error:  # any exception: this is the user's network on our picture
        shape = " x ".join(map(str, values.shape[1:]))
        reason = first_line(error)
        raise InputError(f"{name} does not run on a {shape} input ({reason}): pass another size") from error
