"""Scores finished pictures: in float32, under fixed transforms, and against plain noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..ascent.plan import Plan
from ..ascent.transforms import DRAWS_PER_WARP, affine_matrices
from ..networks.trunk import to_device
from ..objectives.readout import Asked
from ..randomness import uniforms

ROBUST_DRAWS = 16
"""Transforms that the robust score is averaged over."""
_NOISE_TRIES = 4


def robust_warps() -> Tensor:
    """Returns the fixed transforms of the robust score, float32 [16, 2, 3].

    They are uniform within 10 degrees, 10 % of scale and 8 pixels at 224, and borders are reflected. They are
    the same for every picture, network and seed.
    """
    draws = uniforms("robust score", ROBUST_DRAWS * DRAWS_PER_WARP).reshape(ROBUST_DRAWS, DRAWS_PER_WARP)
    return affine_matrices(draws, rotate=10.0, zoom=0.1, shift=8 / 224)


class Scorer:
    """Scores 8-bit pictures with the plain float32 network, in whatever dtype the ascent ran.

    Every picture is scored in its own batch, which always has the same shape, so its score does not depend on
    other pictures.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._module = to_device(plan.trunk, torch.float32, plan.device)
        self._objective = plan.objective.alone

    @torch.no_grad()
    def scores(self, pictures: Tensor, filters: Sequence[Asked]) -> Tensor:
        """Returns the objective of each picture without transforms: uint8 [N, C, H, W] to float32 [N]."""
        with torch.autocast(self._plan.device.type, enabled=False):
            return self._each(pictures, filters, lambda x: x[None])

    @torch.no_grad()
    def robust_scores(self, pictures: Tensor, filters: Sequence[Asked]) -> Tensor:
        """Returns the mean of the objective over the 16 fixed transforms, float32 [N]."""
        with torch.autocast(self._plan.device.type, enabled=False):
            shape = [ROBUST_DRAWS, pictures.shape[1], *pictures.shape[2:]]
            grid = affine_grid(robust_warps().to(self._plan.device), shape, align_corners=False)

            def warped(x: Tensor) -> Tensor:
                copies = x.expand(ROBUST_DRAWS, -1, -1, -1)
                return grid_sample(copies, grid, padding_mode="reflection", align_corners=False)

            return self._each(pictures, filters, warped)

    @torch.no_grad()
    def noise_scores(self, filters: Sequence[Asked]) -> Tensor:
        """Returns the best score of four pictures of plain noise, always the same four, float32 [N]."""
        scores = []
        with torch.autocast(self._plan.device.type, enabled=False):
            for channel in filters:
                selection = self._objective.select([channel], self._plan.device)
                tries = [self._objective.scores(h, *selection) for h in self._noise]
                scores.append(torch.cat(tries).max().cpu())
        return torch.stack(scores)

    @cached_property
    def _noise(self) -> list[Any]:
        """The trunk's output for pictures whose values are drawn uniformly from 0 to 255."""
        plan, found = self._plan, []
        channels, size = len(plan.mean), int(plan.config.size or 0)
        for number in range(_NOISE_TRIES):
            values = np.floor(256 * uniforms(f"noise score {number}", channels * size * size)) / 255
            x = torch.from_numpy(values).float().view(1, channels, size, size).to(plan.device)
            x = (x - plan.mean.view(-1, 1, 1)) / plan.std.view(-1, 1, 1)
            found.append(self._module(plan.read(x.contiguous(memory_format=torch.channels_last))))
        return found

    def _each(self, pictures: Tensor, filters: Sequence[Asked], views: Callable[[Tensor], Tensor]) -> Tensor:
        plan, found = self._plan, []
        mean, std = plan.mean.view(-1, 1, 1), plan.std.view(-1, 1, 1)
        for picture, channel in zip(pictures, filters, strict=True):
            x = views(picture.to(plan.device).float() / 255)
            x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
            selection = self._objective.select([channel], plan.device)
            if len(x) > 1 and any(len(tensor) == 1 for tensor in selection):
                selection = tuple(tensor.expand(len(x), *tensor.shape[1:]) for tensor in selection)
            found.append(self._objective.scores(self._module(plan.read(x)), *selection).mean().cpu())
        return torch.stack(found)
