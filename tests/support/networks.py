"""Eight real networks with random weights that reveal a wrong fold, and small trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cnnvis_fast.networks.preprocessing import Source
from cnnvis_fast.texturenet.network import MEAN, STD
from cnnvis_fast.texturenet.network import SIZE as TEXTURE_SIZE
from cnnvis_fast.texturenet.train import RECIPES

SIZE = 64

NETWORKS: dict[str, dict[str, Any]] = {
    "vgg16": {"init_weights": False},
    "resnet18": {},
    "squeezenet1_0": {},
    "mobilenet_v2": {},
    "efficientnet_b0": {},
    "densenet121": {},
    # Without the heads that only training uses, and with the input transform of its trained weights.
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": False},
    "convnext_tiny": {},
}


def random_network(name: str, generator: torch.Generator) -> nn.Module:
    """Returns one of `NETWORKS` in eval mode, randomized and calibrated."""
    model: nn.Module = torchvision.models.get_model(name, weights=None, **NETWORKS[name])
    model.eval().requires_grad_(False)
    randomize(model, generator)
    calibrate(model, generator)
    return model


TEXTURE_NETWORKS = ("residual", "depthwise", "vit")
"""Architectures besides texturenet that are trained on the same textures; their weights are in assets/."""


def texture_network(architecture: str) -> nn.Module:
    """Returns one of `TEXTURE_NETWORKS`, trained, in eval mode, with its preprocessing."""
    path = Path(__file__).parents[1] / "assets" / f"texturenet_{architecture}.safetensors"
    network: Any = RECIPES[architecture].network()
    network.load_state_dict(load_file(path))
    network.cnnvis_source = Source(f"texturenet {architecture}", path.name, MEAN, STD, TEXTURE_SIZE)
    return network.eval().requires_grad_(False)


def pictures(batch: int, generator: torch.Generator) -> Tensor:
    """Returns coarse blotches plus fine noise: with noise alone, a network could not tell pictures apart."""
    coarse = torch.randn(batch, 3, SIZE // 8, SIZE // 8, generator=generator)
    fine = torch.randn(batch, 3, SIZE, SIZE, generator=generator)
    return interpolate(coarse, size=(SIZE, SIZE), mode="bicubic") + 0.3 * fine


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Sets random weights with which units stay active and rounding errors stay small.

    With white-noise filters before normalized units that are off half of the time, rounding errors grow by a
    fifth from layer to layer (Yang et al. 2019, arXiv:1902.08129), until float32 itself determines only four
    digits of MobileNetV2's last layers. Trained networks do not behave like that. So in networks with
    BatchNorms, filters also average and most units are on.
    """
    normalized = bool(batch_norms(model))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            mixes = isinstance(module, nn.Conv2d) and module.groups == 1
            if normalized and mixes and module.kernel_size[0] > 1:
                module.weight += module.weight.mean((2, 3), keepdim=True) * module.kernel_size[0]
                module.weight *= 0.5**0.5  # restores the scale
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, 0.5, 1.5, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):  # ConvNeXt's starts at 1e-6, which makes its blocks negligible
            nn.init.uniform_(parameter, -0.5, 1.5, generator=generator)


def calibrate(model: nn.Module, generator: torch.Generator) -> None:
    """Sets statistics of pictures, slightly perturbed, so that no BatchNorm just normalizes its input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all calls
        norm.train()  # only the norm: no dropout, no dropped block
    for _ in range(3 if norms else 0):
        model(pictures(8, generator))
    for norm in norms:
        norm.eval()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        shift, factor = torch.rand(2, norm.num_features, generator=generator)
        norm.running_mean += (0.2 * shift - 0.1) * norm.running_var.sqrt()
        norm.running_var *= 0.8 + 0.45 * factor


def outputs_at(targets: list[str], model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Returns the whole network's output at every target, where it runs first, from one forward pass."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        if name not in outputs:
            # Cloned, because an in-place activation overwrites the output that the hook sees.
            outputs[name] = output.clone()

    handles = [
        # The lambda returns None; another result would replace the output.
        model.get_submodule(name).register_forward_hook(lambda _m, _i, y, name=name: keep(name, y))
        for name in targets
        if name != "logits"
    ]
    outputs["logits"] = model(x.clone())
    for handle in handles:
        handle.remove()
    return {name: outputs[name] for name in targets}


def batch_norms(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, nn.BatchNorm2d)]
