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
class Cycle:
    """One rise and fall of the learning rate.

    Attributes:
        steps: optimizer steps, each on fresh pictures.
        rate: highest learning rate.
        partition: weight of the squared log partition function, log(sum(exp(logits))).
    """

    steps: int
    rate: float
    partition: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How one architecture is trained.

    Attributes:
        network: makes it, untrained.
        cycles: one after the other.
        crop: side of the training pictures in pixels.
        per_class: pictures of every class in a step.
    """

    network: Callable[[], nn.Module]
    cycles: tuple[Cycle, ...]
    crop: int = 64
    per_class: int = 4


RECIPES: dict[str, Recipe] = {
    "plain": Recipe(TextureNet, (Cycle(600, 4e-3),), per_class=6),
    "residual": Recipe(ResidualTextureNet, (Cycle(400, 4e-3), Cycle(150, 2e-3, 0.1))),
    "depthwise": Recipe(DepthwiseTextureNet, (Cycle(400, 4e-3), Cycle(200, 2e-3, 0.1))),
    "vit": Recipe(TextureViT, (Cycle(600, 2e-3),), crop=SIZE),
}


def normalize(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1] as the network expects them."""
    return (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(seed: int, architecture: str = "plain", steps: int | None = None) -> nn.Module:
    """Trains one network.

    Args:
        seed: of the initial weights and of the drawn pictures.
        architecture: a name out of `RECIPES`.
        steps: of every cycle; the recipe's own if not given.

    Returns:
        The network in eval mode.
    """
    recipe = RECIPES[architecture]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = recipe.network()  # Any: torch 2.11's stubs do not know memory_format
    network.to(memory_format=torch.channels_last)
    for cycle in recipe.cycles:
        optimizer = torch.optim.AdamW(network.parameters(), lr=cycle.rate, weight_decay=0.02)
        count = steps or cycle.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=cycle.rate, total_steps=count)
        for _ in tqdm(range(count), desc=f"{architecture}, seed {seed}"):
            pictures, labels = batch(recipe.per_class, recipe.crop, generator)
            pictures = _worst_nearby(network, pictures, labels, generator)
            loss = _loss(network, pictures, labels, cycle.partition)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _loss(
    network: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, partition: float = 0.0
) -> torch.Tensor:
    """Cross entropy, with a penalty on the log partition function if one is asked for.

    Cross entropy does not see what is added to all logits alike, so a picture may raise a logit along with
    all others, as black does. Held near zero (Chowdhery et al. 2022), the log partition function leaves a
    logit to be the log probability of its class.
    """
    logits = network(normalize(pictures))
    loss = cross_entropy(logits, labels, label_smoothing=0.05)
    return loss + partition * logits.logsumexp(1).square().mean() if partition else loss


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
    parser.add_argument("--steps", type=int, help="of every cycle (default: the recipe's own)")
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
