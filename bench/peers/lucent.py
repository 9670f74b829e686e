"""lucent: Fourier parameters, decorrelated color, jitter, scale and rotation, Adam at 0.05, 512 steps.

    pip install --no-deps torch-lucent==0.1.8 kornia==0.7.4 kornia_rs decorator future

All settings are lucent's defaults except the size, so that only the recipe differs: 224 pixels, the size at
which the network sees its 128 pixels after enlargement.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.peers import seed_all, upto

VERSION = importlib.metadata.version("torch-lucent")
NAMES = ("lucent",)
SIZE = 224


def _import() -> object:
    """Imports lucent's renderer after restoring two names in kornia that have moved to kornia.geometry."""
    import kornia
    from kornia.geometry import get_rotation_matrix2d, warp_affine

    kornia.get_rotation_matrix2d, kornia.warp_affine = get_rotation_matrix2d, warp_affine
    from lucent.optvis import render

    return render


_render = _import()


def picture(name: str, network: nn.Module, layer: str, channel: int) -> Tensor:
    """Returns the picture, uint8 [3, 224, 224]."""
    return finished(upto(network, layer), layer, channel)


def finished(network: nn.Module, layer: str, channel: int, size: int = SIZE, steps: int = 512) -> Tensor:
    """Returns the picture, uint8 [3, size, size]; lucent's hooks stay on the network."""
    from lucent.optvis import param

    seed_all(layer, channel)
    (image,) = _render.render_vis(
        network,
        f"{layer.replace('.', '_')}:{channel}",
        lambda: param.image(size),
        thresholds=(steps,),
        progress=False,
        show_image=False,
    )
    return torch.from_numpy(image[0]).permute(2, 0, 1).mul(255).round().to(torch.uint8)


def stepper(
    network: nn.Module, layer: str, channels: Sequence[int], size: int = SIZE
) -> Callable[[], object]:
    """Returns a function for one step of `render_vis` by its parts and defaults, one picture per channel."""
    from lucent.optvis import objectives, param, transform

    parameters, image_of = param.image(size, batch=len(channels))
    adam = torch.optim.Adam(parameters, lr=5e-2)
    transformed = transform.compose([*transform.standard_transforms, transform.normalize()])
    hook = _render.hook_model(network, image_of)
    name = layer.replace(".", "_")
    objective = objectives.Objective.sum(
        [objectives.channel(name, channel, batch=row) for row, channel in enumerate(channels)]
    )

    @torch.enable_grad()
    def step() -> object:
        adam.zero_grad()
        network(transformed(image_of()))
        objective(hook).backward()
        return adam.step()

    return step
