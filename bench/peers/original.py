"""The loop that many tutorials share: one picture, a hook on a convolution, Adam on the normalized picture.

Rewritten after J. Bellucci's cnn-visualizations-pytorch (2020), whose class runs layer by layer up to the
target: Adam at 0.1 with weight decay 1e-6 from gray noise, float32. Its printing and its pictures of every
step are left out, and its weights are frozen here, both in its favor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

SIZE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stepper(
    network: nn.Module, layer: str, channels: Sequence[int], size: int = SIZE
) -> Callable[[], object]:
    """Returns a function that takes one step per call, for one channel.

    Args:
        network: one that ends with the layer's block and is frozen; it gets a hook.
        layer: dotted name of the layer.
        channels: a single channel.
        size: side of the picture in pixels.
    """
    (channel,) = channels
    device = next(network.parameters()).device
    found: dict[str, torch.Tensor] = {}
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: found.update(output=output))
    noise = torch.randint(125, 190, (1, 3, size, size), generator=torch.Generator().manual_seed(0)) / 255
    mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
    picture = ((noise - mean) / std).to(device).requires_grad_()
    adam = torch.optim.Adam([picture], lr=0.1, weight_decay=1e-6)

    @torch.enable_grad()
    def step() -> torch.Tensor:
        adam.zero_grad()
        network(picture)
        loss = -found["output"][0, channel].mean()
        loss.backward()
        adam.step()
        return loss.detach()

    return step
