"""Finds the channel axis of a layer's output: maps, maps with channels last, tokens or a vector."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

_SECOND = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)


def channel_axis(shape: Sequence[int], module: nn.Module | None = None) -> int | None:
    """Returns the axis of the channels in a layer's output.

    Vectors [N, C] and maps [N, C, H, W] have channels second; tokens [N, T, C] and maps [N, H, W, C], which
    occur in transformers, have them last. Among outputs with four axes, those of a convolution, pooling layer
    or batch norm have channels second; those of a linear layer or a layer norm over one axis have them last
    (subclasses of layer norm are judged by the shape, since some normalize the second axis). For any other
    module, the two axes of equal size are height and width, as pictures are square; if all three are equal,
    channels are taken to be second.

    Args:
        shape: shape of the output for a square picture, batch first.
        module: the layer; None for the network's output.

    Returns:
        1 or the last axis; None if the output is none of these.
    """
    last = len(shape) - 1
    if isinstance(module, nn.Conv1d):  # [N, C, L]: gates over channels, without positions in a picture
        return None
    if isinstance(module, nn.Linear) or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1):
        return last if 1 <= last <= 3 else None
    if last == 3 and isinstance(module, _SECOND):
        return 1
    if last == 3:
        _, first, second, third = shape
        return 3 if first == second != third else 1
    return {1: 1, 2: 2}.get(last)


def channels_second(output: Tensor, axis: int) -> Tensor:
    """Returns a layer's output as [N, C, ...positions]."""
    return output.movedim(axis, 1)
