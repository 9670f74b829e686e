"""What a network reads, found out by running it: how many channels, at which size."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from .errors import InputError

USUAL_SIZE = 224
_SIZES = (USUAL_SIZE, 32, 64, 96, 28, 128, 256, 299, 384, 48, 160, 192, 240, 320, 512, 16, 8)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Runs a network without gradients in eval mode; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class _FirstConvolution(Exception):
    """Stops a forward pass at the first convolution that runs."""


def input_channels(model: nn.Module) -> int:
    """Channels that the network reads: those of the convolution that runs first.

    Where there is no convolution, the first linear layer tells, if the network runs on pictures of so many
    channels that fill it: 28 x 28 x 1 for one of 784 features. Else 3.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        filling = _filling(model)
        return filling[0] if filling and runs(model, *filling) else 3
    first = [convolutions[0].in_channels]

    def stop(module: nn.Conv2d, _inputs: object) -> None:
        first.insert(0, module.in_channels)
        raise _FirstConvolution

    handles = [module.register_forward_pre_hook(stop) for module in convolutions]
    try:
        # What runs before rarely minds the number of channels; where it does, the first one defined counts.
        runs(model, 3, 64)
    finally:
        for handle in handles:
            handle.remove()
    return first[0]


def input_size(model: nn.Module, channels: int) -> int:
    """Side in pixels of pictures that the network runs on: 224, else the first usual one, told in a note.

    Where it runs on none of them, 224: what is done next says why it does not run.
    """
    filling = _filling(model)
    sizes = [*_SIZES[:1], *([filling[1]] if filling else []), *_SIZES[1:]]
    size = next((size for size in sizes if runs(model, channels, size)), USUAL_SIZE)
    if size != USUAL_SIZE:
        warnings.warn(
            f"{type(model).__name__} does not run at {USUAL_SIZE} px: taking {size} px, where it does; pass "
            "size= for another",
            stacklevel=4,
        )
    return size


def runs(model: nn.Module, channels: int, size: int) -> bool:
    """Whether a network runs on one grey square picture."""
    parameter = next(model.parameters(), torch.zeros(()))
    with contextlib.suppress(Exception), evaluating(model):  # any exception: this is the user's network
        model(torch.zeros(1, channels, size, size, dtype=parameter.dtype, device=parameter.device))
        return True
    return False


def refuse_other_dimensions(model: nn.Module) -> None:
    """Refuses networks that read sound or video.

    Raises:
        InputError: the first convolution is not over two dimensions.
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
    """Channels and side of the square pictures that, flattened, fill the first linear layer; None if none."""
    linear = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    if linear is None or any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    for channels in (3, 1, 4, 2):
        side = math.isqrt(linear.in_features // channels)
        if side >= 8 and channels * side * side == linear.in_features:
            return channels, side
    return None
