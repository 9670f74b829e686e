"""Trains a network on the procedural textures: on the CPU, in some minutes, seeded.

python -m cnnvis_fast.texturenet.train --seed 0 --out texturenet.safetensors
python -m cnnvis_fast.texturenet.train --architecture vit --out texturenet_vit.safetensors
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy, interpolate, one_hot
from tqdm import tqdm

from .architectures import DepthwiseTextureNet, ResidualTextureNet, TextureViT
from .network import MEAN, SIZE, STD, TextureNet
from .textures import CLASSES, COARSE, GRATINGS, batch, draw

_HELD_OUT_SEED = 10_000
_CALIBRATION_SEED = 20_000
_CALIBRATION_ROUNDS, _CALIBRATION_PICTURES = 8, 8  # pictures of every class in each round
_STRETCH = (1.6, 2.4)  # beyond the 1.5 times that the oracle allows
_ALIKE = ("dots", "rings")  # the two classes that training separates last


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate.

    Attributes:
        steps: optimizer steps, each on fresh pictures.
        rate: highest learning rate.
        more: extra pictures of dots and of rings in a step, in addition to those of every class.
        mixed: share of the pictures that combine two.
        spots: features per side of the noise that two pictures are cut along; 0 cuts them straight.
        alike: share of the mixed pictures that combine two of the same class.
        stretched: pictures of each coarse grating, stretched beyond its class, that belong to no class.
        smoothing: share of every label that is spread over all classes.
        partition: weight of the squared log partition function, log(sum(exp(logits))).
        reach: largest change of a picture's value towards a higher loss.
        ramp: share of the steps in which the reach rises from zero.
    """

    steps: int
    rate: float
    more: int = 12
    mixed: float = 0.5
    spots: int = 0
    alike: float = 0.0
    stretched: int = 0
    smoothing: float = 0.0
    partition: float = 0.1
    reach: float = 0.03
    ramp: float = 0.6


@dataclass(frozen=True)
class Recipe:
    """How one architecture is trained.

    Attributes:
        network: makes the untrained network.
        cycles: cycles of the learning rate, in order.
        crop: side of the training pictures in pixels.
        per_class: pictures of every class in a step.
        last: name of the last layer, if its logits are calibrated.
    """

    network: Callable[[], nn.Module]
    cycles: tuple[Cycle, ...]
    crop: int = 64
    per_class: int = 4
    last: str = ""


_PLAIN = Cycle(600, 4e-3, more=0, mixed=0, smoothing=0.05, partition=0, reach=0.025, ramp=0)
RECIPES: dict[str, Recipe] = {
    "plain": Recipe(TextureNet, (_PLAIN,), per_class=6),
    "residual": Recipe(
        ResidualTextureNet, (Cycle(700, 4e-3), Cycle(200, 2e-3, mixed=0.3, partition=0.05, ramp=0)), last="fc"
    ),
    "depthwise": Recipe(
        DepthwiseTextureNet,
        (Cycle(700, 4e-3), Cycle(250, 2e-3, spots=7, alike=0.3, partition=0.02, ramp=0)),
        last="classifier",
    ),
    "vit": Recipe(
        TextureViT,
        (Cycle(900, 2e-3, partition=0.05), Cycle(200, 2e-3, stretched=4, partition=0.05, ramp=0)),
        crop=SIZE,
        last="head",
    ),
}


def normalize(pictures: torch.Tensor) -> torch.Tensor:
    """Normalizes pictures in [0, 1] for the network."""
    return (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def train(seed: int, architecture: str = "plain", steps: int | None = None) -> nn.Module:
    """Trains one network.

    Args:
        seed: seed of the initial weights and of the drawn pictures.
        architecture: a name in `RECIPES`.
        steps: steps of every cycle; None takes those of the recipe.

    Returns:
        The network in eval mode.
    """
    recipe = RECIPES[architecture]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: Any = recipe.network()  # Any: torch 2.11's stubs do not know memory_format
    network.to(memory_format=torch.channels_last)
    for number, cycle in enumerate(recipe.cycles):
        _run(network, recipe, cycle, steps or cycle.steps, seed + 1000 * number)
    network.eval()
    if recipe.last:
        layer = network.get_submodule(recipe.last)
        scale = calibration(network, recipe, seed)
        with torch.no_grad():
            layer.weight *= scale
            layer.bias *= scale
    return network


def _run(network: nn.Module, recipe: Recipe, cycle: Cycle, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=cycle.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=cycle.rate, total_steps=steps)
    for step in tqdm(range(steps), desc=f"{type(network).__name__}, seed {seed}"):
        pictures, targets = _drawn(recipe, cycle, generator)
        loss_of = partial(_loss, network, targets=targets, smoothing=cycle.smoothing)
        reach = cycle.reach * (min(1.0, step / (cycle.ramp * steps)) if cycle.ramp else 1)
        pictures = _worst_nearby(loss_of, pictures, reach, generator)
        loss = loss_of(pictures, partition=cycle.partition)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def calibration(network: nn.Module, recipe: Recipe, seed: int) -> float:
    """Returns the factor for logits with the lowest cross entropy (temperature scaling, Guo et al. 2017).

    Networks trained on mixed pictures are less confident on whole pictures than they are accurate
    (Thulasidasan et al. 2019). New whole pictures of every class are drawn and perturbed as in training,
    because too few unperturbed pictures are misclassified to determine the factor.
    """
    generator = torch.Generator().manual_seed(seed + _CALIBRATION_SEED)
    logits, labels = [], []
    for _ in range(_CALIBRATION_ROUNDS):
        pictures, targets = batch(_CALIBRATION_PICTURES, recipe.crop, generator)
        loss_of = partial(_loss, network, targets=targets, smoothing=0.0)
        moved = _worst_nearby(loss_of, pictures, recipe.cycles[-1].reach, generator)
        with torch.no_grad():
            logits.append(network(normalize(moved)))
        labels.append(targets)
    scores, truth = torch.cat(logits), torch.cat(labels)
    return min(
        (0.1 * step for step in range(5, 51)), key=lambda scale: float(cross_entropy(scale * scores, truth))
    )


def _drawn(recipe: Recipe, cycle: Cycle, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a step's pictures and their classes, or their shares of each class if some are mixed."""
    pictures, labels = batch(recipe.per_class, recipe.crop, generator)
    if cycle.more:
        pictures = torch.cat([pictures, *(draw(name, cycle.more, recipe.crop, generator) for name in _ALIKE)])
        more = torch.tensor([CLASSES.index(name) for name in _ALIKE]).repeat_interleave(cycle.more)
        labels = torch.cat([labels, more])
    if not cycle.mixed:
        return pictures, labels
    pictures, targets = _mixed(pictures, one_hot(labels, len(CLASSES)).float(), cycle, generator)
    if not cycle.stretched:
        return pictures, targets
    none = _stretched(cycle.stretched, recipe.crop, generator)
    no_class = torch.full((len(none), len(CLASSES)), 1 / len(CLASSES))
    return torch.cat([pictures, none]), torch.cat([targets, no_class])


def _stretched(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Returns gratings with frequencies too low for any class, which no other training picture shows."""
    parts = []
    for name in (name for name, grating in GRATINGS.items() if grating.frequency == COARSE):
        low, high = _STRETCH
        by = low + (high - low) * float(torch.rand(1, generator=generator))
        small = draw(name, count, round(size / by), generator)
        parts.append(interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1))
    return torch.cat(parts)


def _mixed(
    pictures: torch.Tensor, targets: torch.Tensor, cycle: Cycle, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Combines some of the pictures in pairs, half of them blended (Zhang et al. 2018), half of them cut.

    A network that has only seen whole pictures of one class is as confident on a patchwork. A network trained
    on the share of each class prefers a picture filled with its class. Cuts along smooth noise (Harris et al.
    2020) make spots in training pictures, which otherwise remain in pictures of plain colors.
    """
    count, size = round(cycle.mixed * len(pictures)), pictures.shape[-1]
    changed = torch.randperm(len(pictures), generator=generator)[:count]
    other = torch.randint(len(pictures), (count,), generator=generator)
    if cycle.alike:
        labels = targets.argmax(1)
        same = (labels[changed, None] == labels).float().multinomial(1, generator=generator)[:, 0]
        other = torch.where(torch.rand(count, generator=generator) < cycle.alike, same, other)
    weight, turn, blended = torch.rand(3, count, 1, 1, generator=generator)
    if cycle.spots:
        coarse = torch.randn(count, 1, cycle.spots, cycle.spots, generator=generator)
        along = interpolate(coarse, size=(size, size), mode="bicubic")
    else:
        axis = (torch.arange(size) + 0.5) / size - 0.5
        turn = 2 * math.pi * turn
        along = turn.cos() * axis + turn.sin() * axis[:, None]
    along = along.flatten(1)
    cut = along.argsort(1).argsort(1) < weight.flatten(1) * size**2
    mask = torch.where(blended < 0.5, weight, cut.view(count, size, size).float())[:, None]
    of_own = mask.mean((1, 2, 3))[:, None]
    pictures, targets = pictures.clone(), targets.clone()
    pictures[changed] = mask * pictures[changed] + (1 - mask) * pictures[other]
    targets[changed] = of_own * targets[changed] + (1 - of_own) * targets[other]
    return pictures, targets


def _loss(
    network: nn.Module,
    pictures: torch.Tensor,
    *,
    targets: torch.Tensor,
    smoothing: float,
    partition: float = 0.0,
) -> torch.Tensor:
    """Returns the cross entropy, plus a penalty on the log partition function if `partition` is not zero.

    Cross entropy ignores what is added to all logits alike, so a picture may raise a logit along with all
    others, as black does. With the log partition function held near zero (Chowdhery et al. 2022), a logit is
    the log probability of its class.
    """
    logits = network(normalize(pictures))
    loss = cross_entropy(logits, targets, label_smoothing=smoothing)
    return loss + partition * logits.logsumexp(1).square().mean() if partition else loss


def _worst_nearby(
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    pictures: torch.Tensor,
    reach: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Returns pictures whose values are moved by up to `reach` towards a higher loss.

    This is fast adversarial training (Wong et al. 2020). A network trained on such pictures has gradients
    that follow what a class looks like, so the picture that maximizes a class shows that class and is not an
    adversarial example. If the reach is large from the start, a network may stop separating two similar
    classes, dots and rings, and label either as both: a distinction that it does not make cannot be used
    against it. So the reach rises.
    """
    noise = (2 * torch.rand(pictures.shape, generator=generator) - 1) * reach
    noise.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss_of(pictures + noise), noise)
    moved = (noise.detach() + 1.25 * reach * slope.sign()).clamp(-reach, reach)
    return (pictures + moved).clamp(0, 1)


@torch.no_grad()
def held_out_accuracy(network: nn.Module, per_class: int = 50, size: int = 64) -> float:
    """Returns the accuracy on newly drawn pictures, none of which was drawn in training."""
    pictures, labels = batch(per_class, size, torch.Generator().manual_seed(_HELD_OUT_SEED))
    logits = torch.cat([network(normalize(part)) for part in pictures.split(100)])
    return float((logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Runs the training script's command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--architecture", choices=RECIPES, default="plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="steps of every cycle (default: the recipe's)")
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
