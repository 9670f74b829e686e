"""Eight real networks with random weights under which a wrong fold shows, and small trained ones."""

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
    # Without the heads that run in training only, and with the input as its trained weights want it.
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": False},
    "convnext_tiny": {},
}


def random_network(name: str, generator: torch.Generator) -> nn.Module:
    """One of them in eval mode, randomized and calibrated."""
    model: nn.Module = torchvision.models.get_model(name, weights=None, **NETWORKS[name])
    model.eval().requires_grad_(False)
    randomize(model, generator)
    calibrate(model, generator)
    return model


TEXTURE_NETWORKS = ("residual", "depthwise", "vit")
"""Architectures beside texturenet's own that are trained on the same textures; the weights lie in assets/."""


def texture_network(architecture: str) -> nn.Module:
    """One of them, trained, in eval mode, with its preprocessing."""
    path = Path(__file__).parents[1] / "assets" / f"texturenet_{architecture}.safetensors"
    network: Any = RECIPES[architecture].network()
    network.load_state_dict(load_file(path))
    network.cnnvis_source = Source(f"texturenet {architecture}", path.name, MEAN, STD, TEXTURE_SIZE)
    return network.eval().requires_grad_(False)


def pictures(batch: int, generator: torch.Generator) -> Tensor:
    """Coarse blotches and fine noise: of noise alone, one picture would look to a network like any other."""
    coarse = torch.randn(batch, 3, SIZE // 8, SIZE // 8, generator=generator)
    fine = torch.randn(batch, 3, SIZE, SIZE, generator=generator)
    return interpolate(coarse, size=(SIZE, SIZE), mode="bicubic") + 0.3 * fine


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Weights with which activations live and rounding errors stay small.

    Filters of white noise before normalized units that are off half of the time let rounding errors grow by
    a fifth from layer to layer (Yang et al. 2019, arXiv:1902.08129), until float32 itself settles no more
    than four digits of MobileNetV2's last layers. Trained networks are not like that. So where there are
    BatchNorms, filters also average and most units are on.
    """
    normalized = bool(batch_norms(model))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            mixes = isinstance(module, nn.Conv2d) and module.groups == 1
            if normalized and mixes and module.kernel_size[0] > 1:
                module.weight += module.weight.mean((2, 3), keepdim=True) * module.kernel_size[0]
                module.weight *= 0.5**0.5  # as large as before
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, 0.5, 1.5, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):  # ConvNeXt's starts at 1e-6, as if its blocks were not there
            nn.init.uniform_(parameter, -0.5, 1.5, generator=generator)


def calibrate(model: nn.Module, generator: torch.Generator) -> None:
    """Statistics of pictures, then a little off, as on other pictures: no BatchNorm just undoes its input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all calls
        norm.train()  # it alone: no dropout, no block left out
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
    """What the whole network computes at all targets, where each runs first, in one go."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        if name not in outputs:
            # Cloned, because an in-place activation overwrites what the hook is shown.
            outputs[name] = output.clone()

    handles = [
        # The lambda gives None, or its result would replace the output.
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
