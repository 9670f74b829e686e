"""Trains a network on the procedural textures: CPU, some minutes, seeded.

python -m cnnvis_fast.texturenet.train --seed 0 --out texturenet.safetensors
python -m cnnvis_fast.texturenet.train --architecture vit --out texturenet_vit.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from .architectures import DepthwiseTextureNet, ResidualTextureNet, TextureViT
from .network import MEAN, SIZE, STD, TextureNet
from .textures import CLASSES, batch

REACH = 0.025
_HELD_OUT_SEED = 10_000


@dataclass(frozen=True)
class Recipe:
    """How one architecture is trained.

    Attributes:
        network: makes it, untrained.
        crop: side of the training pictures in pixels.
        steps: optimizer steps, each on fresh pictures.
        per_class: pictures of every class in a step.
        rate: highest learning rate.
    """

    network: Callable[[], nn.Module]
    crop: int = 64
    steps: int = 600
    per_class: int = 6
    rate: float = 4e-3


RECIPES: dict[str, Recipe] = {
    "plain": Recipe(TextureNet),
    "residual": Recipe(ResidualTextureNet, steps=400, per_class=4),
    "depthwise": Recipe(DepthwiseTextureNet, steps=400, per_class=4),
    "vit": Recipe(TextureViT, crop=SIZE, per_class=4, rate=2e-3),
}


def normalize(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1] as the network expects them."""
    return (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(seed: int, architecture: str = "plain", steps: int | None = None) -> nn.Module:
    """Trains one network.

    Args:
        seed: of the initial weights and of the drawn pictures.
        architecture: a name out of `RECIPES`.
        steps: fewer or more than the recipe's.

    Returns:
        The network in eval mode.
    """
    recipe = RECIPES[architecture]
    steps = recipe.steps if steps is None else steps
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = recipe.network()  # Any: torch 2.11's stubs do not know memory_format
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps)
    for _ in tqdm(range(steps), desc=f"{architecture}, seed {seed}"):
        pictures, labels = batch(recipe.per_class, recipe.crop, generator)
        pictures = _worst_nearby(network, pictures, labels, generator)
        loss = _loss(network, pictures, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _loss(network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(network(normalize(pictures)), labels, label_smoothing=0.05)


def _worst_nearby(
    network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Pictures moved by up to `REACH` a value towards a higher loss.

    This is fast adversarial training (Wong et al. 2020). A network trained on such pictures has gradients
    that follow what a class looks like, so the picture that excites a class is one of it, not a trick.
    """
    noise = (2 * torch.rand(pictures.shape, generator=generator) - 1) * REACH
    noise.requires_grad_(True)
    (slope,) = torch.autograd.grad(_loss(network, pictures + noise, labels), noise)
    moved = (noise.detach() + 1.25 * REACH * slope.sign()).clamp(-REACH, REACH)
    return (pictures + moved).clamp(0, 1)


@torch.no_grad()
def held_out_accuracy(network: nn.Module, per_class: int = 50, size: int = 64) -> float:
    """Share of freshly drawn pictures, unlike any drawn in training, that are classified right."""
    pictures, labels = batch(per_class, size, torch.Generator().manual_seed(_HELD_OUT_SEED))
    logits = torch.cat([network(normalize(part)) for part in pictures.split(100)])
    return float((logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Command line of the training script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--architecture", choices=RECIPES, default="plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the architecture's own)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    network = train(arguments.seed, arguments.architecture, arguments.steps)
    accuracy = held_out_accuracy(network, size=RECIPES[arguments.architecture].crop)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    metadata = {
        "architecture": arguments.architecture,
        "classes": ",".join(CLASSES),
        "seed": str(arguments.seed),
    }
    save_file(weights, arguments.out, metadata=metadata)
    print(f"{arguments.out}: held-out accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
