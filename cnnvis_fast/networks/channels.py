"""Where the channels of a layer's output are: maps, maps with channels last, tokens or vectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

_SECOND = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)


def channel_axis(shape: Sequence[int], module: nn.Module | None = None) -> int | None:
    """Axis of the channels in a layer's output.

    Vectors [N, C] and maps [N, C, H, W] have them second; tokens [N, T, C] and maps [N, H, W, C], as
    transformers have them, last. Of four axes a convolution, a pooling or a batch norm has them second, a
    linear layer or a layer norm over one axis last (subclasses of layer norm go by the shape, as some
    normalize the second axis); of any other module, pictures being square, the two axes alike are height and
    width, and where all three are alike the channels count as second.

    Args:
        shape: of the output for a square picture, batch first.
        module: the layer; None for the network's output.

    Returns:
        1 or the last axis; None where the output is none of these.
    """
    last = len(shape) - 1
    if isinstance(module, nn.Conv1d):  # [N, C, L]: gates over channels, no positions of a picture
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
    """A layer's output as [N, C, ...positions]."""
    return output.movedim(axis, 1)
