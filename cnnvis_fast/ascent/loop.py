"""The loop: gradient ascent on a batch of pictures, one function per step."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import backends, ops
from ..objectives.readout import Asked
from . import status
from .allocator import kept_buffers
from .penalties import penalized
from .plan import Plan
from .redirected_relu import redirected
from .transforms import inside, noise_table, normal_noise, warp_table

_REVIVALS, _REVIVAL_STEPS = 3, 16
_serial = itertools.count()

Step = Callable[..., tuple[Tensor, Tensor]]
Watch = Callable[[int, Tensor, Tensor], object]
"""Called after every step with its number from 1, and parameters and scores of the pictures asked for."""
Gradient = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""(p, warp, noise, *selection) to the gradients of the parameters and of z, and the scores [B]."""


@dataclass(frozen=True)
class Run:
    """The result of one batch, first axis = pictures, on the CPU.

    Attributes:
        start: the pictures before the first step, uint8 [N, C, H, W].
        images: the pictures after the last step, uint8 [N, C, H, W].
        history: the objective at every step, under that step's random transform, float32 [N, steps].
        status: "ok", "redirected" (started without a gradient and was helped to one), "dead" or "nonfinite".
        alpha: sum over the steps of the gradient's magnitude at every pixel, float32 [N, H, W]; None if it
            was not asked for.
    """

    start: Tensor
    images: Tensor
    history: Tensor
    status: list[str]
    alpha: Tensor | None = None


@dataclass
class _State:
    """Parameters and moments of a batch; `alpha` sums up gradient magnitudes, [B, H, W], if asked for."""

    p: Tensor
    m: Tensor
    v: Tensor | None
    alpha: Tensor | None = None

    @staticmethod
    def at(p: Tensor, second_moment: str, bands: Tensor | None) -> _State:
        v: Tensor | None = None
        if second_moment == "image":
            v = p.new_zeros(len(p))
        elif second_moment == "coefficient":
            v = torch.zeros_like(p)
        elif second_moment == "band" and bands is not None:
            v = p.new_zeros(len(p), int(bands.max()) + 1)
        return _State(p, torch.zeros_like(p), v)


def gradient_function(plan: Plan, module: nn.Module) -> Gradient:
    """Returns the gradient of a batch; `module` is the plan's, or a copy that runs in its place."""
    objective, parameters, canvas = plan.objective, plan.parameters, plan.canvas
    config, dtype = plan.config, plan.dtype
    program = plan.program if module is plan.module else None

    def of_input(x: Tensor, selection: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if plan.window is None:
            return of_window(x, selection)
        g, scores = of_window(plan.window.cut(x), selection)
        return plan.window.adjoint(g, x.shape[2:]), scores

    def of_window(x: Tensor, selection: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if program is not None:
            return objective.gradient(program, x, *selection)

        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            ascended, scores = objective.ascended(module(x), *selection)
            return ascended.sum(), scores

        gradient: tuple[Tensor, Tensor] = torch.func.grad(total, has_aux=True)(x)
        return gradient

    def of_parameters(
        p: Tensor, warp: Tensor | None, noise: Tensor | None, *selection: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = parameters.decode(p)
        x = parameters.render(z, canvas, warp, dtype)
        shown = inside(warp, *x.shape[2:]) if config.pad and warp is not None else None
        if shown is not None:
            x = x * shown
        if noise is not None:
            x = x + (config.input_noise * normal_noise(noise, x.shape[1:])).to(dtype)
        g, scores = of_input(x.contiguous(memory_format=torch.channels_last), selection)
        if shown is not None:
            g = g * shown
        dz = parameters.render_backward(g, z, canvas, warp)
        if parameters.has_z:
            dz = penalized(dz, z, canvas.color, config)
        return parameters.adjoint(dz, p), dz, scores

    return of_parameters


def in_parts(gradient: Gradient, parts: int) -> Gradient:
    """Returns the same gradient, computed for one part of the batch after another to save memory."""
    if parts == 1:
        return gradient

    def cut(
        p: Tensor, warp: Tensor | None, noise: Tensor | None, *selection: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws = ([None] * parts if draw is None else draw.chunk(parts) for draw in (warp, noise))
        pieces = zip(p.chunk(parts), *draws, *(tensor.chunk(parts) for tensor in selection), strict=True)
        gradients, slopes, scores = zip(*(gradient(*piece) for piece in pieces), strict=True)
        return torch.cat(gradients), torch.cat(slopes), torch.cat(scores)

    return cut


def step_function(plan: Plan, module: nn.Module, parts: int = 1) -> Step:
    """Returns one step: (p, m, v, alpha, warp, noise, schedule, *selection) to scores and energies [B].

    An energy is that of the gradient. p, m, v and alpha change in place. `torch.compile(fullgraph=True)`
    compiles a step as one graph.
    """
    gradient = in_parts(gradient_function(plan, module), parts)
    config, parameters = plan.config, plan.parameters
    band = parameters.bands if config.second_moment == "band" else None
    beta1, beta2, weight_decay = config.beta1, config.beta2, config.weight_decay
    radius = config.blur * int(config.size or 0) / 224

    def step(
        p: Tensor,
        m: Tensor,
        v: Tensor | None,
        alpha: Tensor | None,
        warp: Tensor | None,
        noise: Tensor | None,
        schedule: Tensor,
        *selection: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dp, dz, scores = gradient(p, warp, noise, *selection)
        energy = ops.ascend_(p, m, v, dp, schedule, band, beta1, beta2, config.epsilon, weight_decay)
        if alpha is not None:
            alpha += dz.abs().mean(1).nan_to_num(0, 0, 0)
        if radius:
            parameters.soften_(p, radius)
        return scores, energy

    return step


def compiled(step: Step, **options: Any) -> Step:
    """Returns the step as one graph of `torch.compile`; a graph break is an error.

    Every plan gets its own code object: the compiler counts recompilations per code object and gives up at
    the ninth, which a sweep over layers would reach.
    """
    if isinstance(step, types.FunctionType):
        code = step.__code__.replace(co_name=f"step_{next(_serial)}")
        step = types.FunctionType(code, step.__globals__, code.co_name, step.__defaults__, step.__closure__)
    return torch.compile(step, fullgraph=True, dynamic=False, **options)


class Ascent:
    """Makes pictures of one target, a batch at a time.

    Args:
        plan: plan of the target.
        parts: number of parts whose gradients are computed one after another; a divisor of the batch.
    """

    def __init__(self, plan: Plan, parts: int = 1) -> None:
        self.plan, self.parts = plan, parts
        eager = step_function(plan, plan.module, parts)
        self._step = compiled(eager) if plan.config.compile else eager

    @torch.no_grad()
    def run(
        self, filters: Sequence[Asked], watch: Watch = lambda *_: None, start: Tensor | None = None
    ) -> Run:
        """Makes pictures of up to `plan.batch` filters or objectives.

        The batch is padded to full size, so that a picture's bits do not depend on how many were asked for.

        Args:
            filters: channels of the target, or objectives of the plan's form; groups whole and in order.
            watch: called after every step.
            start: parameters to start from, first axis = filters; None draws them.
        """
        with (
            kept_buffers(),
            backends.using(self.plan.config.kernels),
            torch.autocast(self.plan.device.type, enabled=False),
        ):
            return self._run(filters, watch, start)

    def _run(self, filters: Sequence[Asked], watch: Watch, given: Tensor | None) -> Run:
        plan = self.plan
        count = len(filters)
        filler = itertools.cycle(filters[: plan.group])
        padded = [*filters, *itertools.islice(filler, plan.batch - count)]
        keys = [plan.key(channel) for channel in padded]
        selection = plan.select(padded)
        warps = [
            w if w is None else w.to(plan.device)
            for w in warp_table(plan.config, keys, int(plan.config.size or 0))
        ]
        noises = [n if n is None else n.to(plan.device) for n in noise_table(plan.config, keys)]
        if given is None:
            p = plan.first_parameters(padded)
        else:
            p = torch.cat([given, given[:1].expand(plan.batch - count, *given.shape[1:])]).to(plan.device)
        start = self._pictures(p)[:count]
        p, statuses = self._revive(p, warps, noises, selection)
        state = _State.at(p, plan.config.second_moment, plan.parameters.bands)
        size = int(plan.config.size or 0)
        state.alpha = p.new_zeros(plan.batch, size, size) if plan.config.alpha else None
        scores, energies = [], []
        for step, draws in enumerate(zip(warps, noises, plan.schedule(), strict=True), start=1):
            score, energy = self._step(state.p, state.m, state.v, state.alpha, *draws, *selection)
            scores.append(score)
            energies.append(energy)
            watch(step, state.p[:count], score[:count])
        history = torch.stack(scores, 1)[:count].float().cpu()
        finite = torch.stack(energies, 1)[:count].cpu().isfinite().all(1) & history.isfinite().all(1)
        pairs = zip(statuses[:count], finite.tolist(), strict=True)
        statuses = [status.after_ascent(before, ok) for before, ok in pairs]
        alpha = None if state.alpha is None else state.alpha[:count].cpu()
        return Run(start, self._pictures(state.p)[:count], history, statuses, alpha)

    def _pictures(self, p: Tensor) -> Tensor:
        """Maps parameters to 8-bit pictures [B, C, H, W] on the CPU."""
        pictures = self.plan.parameters.pictures(p, self.plan.canvas)
        return pictures.mul(255).round_().to(torch.uint8).contiguous().cpu()

    def _revive(
        self,
        p: Tensor,
        warps: list[Tensor | None],
        noises: list[Tensor | None],
        selection: tuple[Tensor, ...],
    ) -> tuple[Tensor, list[str]]:
        """Moves pictures that start without any gradient to where they have one; returns statuses too.

        They take a few steps on a copy of the trunk whose ReLUs let gradient through where they are off; all
        others stay unchanged. Costs as much as one step where nothing is dead.
        """
        plan = self.plan
        gradient = in_parts(gradient_function(plan, plan.module), self.parts)

        def dead(p: Tensor) -> Tensor:
            dp, _, _ = gradient(p, warps[0], noises[0], *selection)
            return dp.flatten(1).abs().amax(1) == 0

        started_dead = still_dead = dead(p)
        helped = plan.config.redirect and bool(started_dead.any())
        leaky = redirected(plan.module) if helped else None
        if leaky is not None:
            step = step_function(plan, leaky, self.parts)
            inputs = itertools.cycle(zip(warps, noises, plan.schedule(), strict=True))
            state = _State.at(p.clone(), plan.config.second_moment, plan.parameters.bands)
            for _ in range(_REVIVALS):
                for draws in itertools.islice(inputs, _REVIVAL_STEPS):
                    step(state.p, state.m, state.v, None, *draws, *selection)
                keep = still_dead.view(-1, *[1] * (p.ndim - 1))
                p = torch.where(keep, state.p, p)
                still_dead = still_dead & dead(p)
                if not still_dead.any():
                    break
        pairs = zip(started_dead.tolist(), still_dead.tolist(), strict=True)
        return p, [status.before_ascent(started, still) for started, still in pairs]
