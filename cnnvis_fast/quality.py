"""How good a finished picture is: its score in float32, under fixed transforms, and two measures of noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .plan import Plan
from .trunk import to_device
from .warps import ROBUST_DRAWS, robust_warps


class Scorer:
    """Scores 8-bit pictures with the plain float32 network, whatever the ascent ran in.

    Every picture is scored in a batch of its own and always of the same shape, so its score does not depend
    on what is scored beside it.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._module = to_device(plan.trunk, torch.float32, plan.device)

    @torch.no_grad()
    def scores(self, pictures: Tensor, filters: Sequence[int]) -> Tensor:
        """The objective of each picture as it is: uint8 [N, C, H, W] to float32 [N]."""
        with torch.autocast(self._plan.device.type, enabled=False):
            return self._each(pictures, filters, lambda x: x[None])

    @torch.no_grad()
    def robust_scores(self, pictures: Tensor, filters: Sequence[int]) -> Tensor:
        """Mean of the objective over 16 fixed transforms (`warps.robust_warps`), float32 [N]."""
        with torch.autocast(self._plan.device.type, enabled=False):
            shape = [ROBUST_DRAWS, pictures.shape[1], *pictures.shape[2:]]
            grid = affine_grid(robust_warps().to(self._plan.device), shape, align_corners=False)

            def warped(x: Tensor) -> Tensor:
                copies = x.expand(ROBUST_DRAWS, -1, -1, -1)
                return grid_sample(copies, grid, padding_mode="reflection", align_corners=False)

            return self._each(pictures, filters, warped)

    def _each(self, pictures: Tensor, filters: Sequence[int], views: Callable[[Tensor], Tensor]) -> Tensor:
        plan, found = self._plan, []
        mean, std = plan.mean.view(-1, 1, 1), plan.std.view(-1, 1, 1)
        for picture, channel in zip(pictures, filters, strict=True):
            x = views(picture.to(plan.device).float() / 255)
            x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
            selection = plan.objective.select([channel], plan.device)
            found.append(plan.objective.scores(self._module(x), *selection).mean().cpu())
        return torch.stack(found)


def saturated_share(pictures: Tensor) -> Tensor:
    """Share of values below 0.02 or above 0.98 of uint8 pictures [N, C, H, W], float32 [N]."""
    values = pictures.float() / 255
    return ((values < 0.02) | (values > 0.98)).float().mean((1, 2, 3))


def high_frequency_share(pictures: Tensor) -> Tensor:
    """Share of power above 0.25 cycles per pixel, mean removed, averaged over channels, float32 [N]."""
    values = pictures.float() / 255
    values = values - values.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(values).abs().square()
    down, right = (torch.fft.fftfreq(n) for n in pictures.shape[2:])
    high = (down[:, None].square() + right.square()).sqrt() > 0.25
    total = power.sum((2, 3)).clamp_min(1e-12)
    return ((power * high).sum((2, 3)) / total).mean(1)
