"""Trains `texturenet` on its procedural textures: CPU, a few minutes, seeded.

python -m cnnvis_fast.texturenet.train --seed 0 --out texturenet.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from .network import MEAN, STD, TextureNet
from .textures import CLASSES, batch

CROP = 64
REACH = 0.025
_HELD_OUT_SEED = 10_000


def normalize(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1] as the network expects them."""
    return (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(seed: int, steps: int = 600, per_class: int = 6) -> TextureNet:
    """Trains one network.

    Args:
        seed: of the initial weights and of the drawn pictures.
        steps: optimizer steps, each on fresh pictures.
        per_class: pictures of every class in a step.

    Returns:
        The network in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = TextureNet()  # Any: torch 2.11's stubs do not know memory_format
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc=f"texturenet, seed {seed}"):
        pictures, labels = batch(per_class, CROP, generator)
        pictures = _worst_nearby(network, pictures, labels, generator)
        loss = _loss(network, pictures, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _loss(network: TextureNet, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(network(normalize(pictures)), labels, label_smoothing=0.05)


def _worst_nearby(
    network: TextureNet, pictures: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
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
def held_out_accuracy(network: TextureNet, per_class: int = 50) -> float:
    """Share of freshly drawn pictures, unlike any drawn in training, that are classified right."""
    pictures, labels = batch(per_class, CROP, torch.Generator().manual_seed(_HELD_OUT_SEED))
    logits = torch.cat([network(normalize(part)) for part in pictures.split(100)])
    return float((logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Command line of the training script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    network = train(arguments.seed, arguments.steps)
    accuracy = held_out_accuracy(network)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, arguments.out, metadata={"classes": ",".join(CLASSES), "seed": str(arguments.seed)})
    print(f"{arguments.out}: held-out accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
