"""Pictures of every kind of network that torchvision and timm have: a clean run and honest numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import timm
import torch
from support.networks import calibrate, randomize
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

import cnnvis_fast as cv
from cnnvis_fast.networks.channels import channel_axis
from cnnvis_fast.networks.names import resolve

pytestmark = pytest.mark.usefixtures("one_thread")

FILTERS = [0, 1]


@dataclass
class Case:
    """A network and some of its targets: a convolution, one with channels last, the output."""

    make: Callable[[], nn.Module]
    layers: tuple[str, ...]
    size: int = 64


def torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: zoo.get_model(name, weights=None, **options)


def of_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **options)


def small_vit() -> nn.Module:
    return VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def small_swin() -> nn.Module:
    return SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10)


BLOCK = "encoder.layers.encoder_layer_1"
QUICK = {
    "resnet18": Case(torchvision("resnet18"), ("layer2.0.conv2", "layer3", "logits")),
    "mobilenet_v3_small": Case(torchvision("mobilenet_v3_small"), ("conv12", "features.4", "logits")),
    "vision transformer": Case(small_vit, ("conv_proj", BLOCK, f"{BLOCK}.mlp.0", "logits")),
    "swin": Case(small_swin, ("features.0.0", "features.1.1", "features.3.0.mlp.0", "logits")),
    "timm vit": Case(
        of_timm("vit_tiny_patch16_224", img_size=64, depth=2),
        ("patch_embed.proj", "blocks.1", "blocks.0.mlp.fc1", "logits"),
    ),
    "timm resnet10t": Case(of_timm("resnet10t"), ("layer2.0.conv1", "logits")),
}
SLOW = {
    "vgg11": Case(torchvision("vgg11", init_weights=False), ("features.11", "features.12", "logits")),
    "densenet121": Case(torchvision("densenet121"), ("conv30", "features.denseblock2", "logits")),
    "efficientnet_b0": Case(torchvision("efficientnet_b0"), ("conv20", "features.4", "logits")),
    "convnext_tiny": Case(
        torchvision("convnext_tiny"), ("features.3.0.block.0", "features.3.0.block.3", "features.5", "logits")
    ),
    "vit_b_16": Case(torchvision("vit_b_16"), ("conv_proj", "encoder.layers.encoder_layer_5", "logits"), 224),
    "swin_t": Case(torchvision("swin_t"), ("features.3.1", "logits")),
    "timm convnext_atto": Case(
        of_timm("convnext_atto"),
        ("stages.1.blocks.0.conv_dw", "stages.1.blocks.0.norm", "stages.2", "logits"),
    ),
    "timm efficientnet_b0": Case(of_timm("efficientnet_b0"), ("blocks.2.0.conv_dw", "blocks.3", "logits")),
    "timm vit_tiny_patch16_224": Case(of_timm("vit_tiny_patch16_224"), ("blocks.8", "logits"), 224),
    "timm resnetv2": Case(of_timm("resnetv2_18d"), ("stages.1", "logits")),
}


def check(case: Case) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = case.make().eval().requires_grad_(False)
    randomize(network, generator)
    calibrate(network, generator)
    for layer in case.layers:
        for preset in ("natural", "strong"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                pictures = cv.maximize(
                    *(network, layer, FILTERS),
                    mean=(0.5,) * 3,
                    std=(0.25,) * 3,
                    preset=preset,
                    steps=4,
                    size=case.size,
                    batch=2,
                    progress=False,
                )
            assert pictures.images.shape == (2, 3, case.size, case.size)
            assert pictures.images.isfinite().all()
            assert pictures.history.isfinite().all()
            told = activation(network, layer, (pictures.images - 0.5) / 0.25)
            assert torch.allclose(pictures.scores, told, rtol=1e-3, atol=1e-4), layer
            for status, start, end in zip(
                pictures.status, pictures.start_scores, pictures.scores, strict=True
            ):
                assert status in ("ok", "redirected", "stalled", "dead")
                assert (status in ("ok", "redirected")) == (end > start).item()


def activation(network: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Mean over positions of the channel that each picture was made for, by the network itself."""
    network, name = copy.deepcopy(network), resolve(network, layer)
    kept: list[Tensor] = []
    module = None if name == "logits" else network.get_submodule(name)
    (module or network).register_forward_hook(lambda _m, _i, y: kept.append(y.clone()))
    network(x)
    axis = channel_axis(kept[0].shape, module)
    assert axis is not None
    output = kept[0].movedim(axis, 1)
    return torch.stack([output[row, channel].mean() for row, channel in enumerate(FILTERS)])


@pytest.mark.parametrize("case", QUICK.values(), ids=QUICK)
def test_pictures_of_every_kind_of_network(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW.values(), ids=SLOW)
def test_pictures_of_real_networks(case: Case) -> None:
    check(case)
