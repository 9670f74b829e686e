"""lucent: Fourier parameters, decorrelated colour, jitter, scale and rotation, Adam at 0.05, 512 steps.

    pip install --no-deps torch-lucent==0.1.8 kornia==0.7.4 kornia_rs decorator future

Everything is its default but the size: 224 pixels, which is what the network sees of its 128 pixels after
enlargement, so that nothing but the recipe differs.
"""

from __future__ import annotations

import importlib.metadata

import torch
from torch import Tensor, nn

from bench.peers import seed_all, upto

VERSION = importlib.metadata.version("torch-lucent")
NAMES = ("lucent",)
SIZE = 224


def _import() -> object:
    """lucent asks kornia's root for two names that have moved to kornia.geometry."""
    import kornia
    from kornia.geometry import get_rotation_matrix2d, warp_affine

    kornia.get_rotation_matrix2d, kornia.warp_affine = get_rotation_matrix2d, warp_affine
    from lucent.optvis import render

    return render


_render = _import()


def picture(name: str, network: nn.Module, layer: str, channel: int) -> Tensor:
    """uint8 [3, 224, 224]."""
    from lucent.optvis import param

    seed_all(layer, channel)
    (image,) = _render.render_vis(
        upto(network, layer),
        f"{layer.replace('.', '_')}:{channel}",
        lambda: param.image(SIZE),
        progress=False,
        show_image=False,
    )
    return torch.from_numpy(image[0]).permute(2, 0, 1).mul(255).round().to(torch.uint8)
