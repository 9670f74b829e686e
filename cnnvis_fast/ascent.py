"""The loop: gradient ascent on a batch of pictures, one function per step."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError
from .kernels import backends, ops
from .memory import kept_buffers
from .parameters import Normalized
from .plan import Plan
from .trunk import redirected
from .warps import warp_table

_REVIVALS, _REVIVAL_STEPS = 3, 16
_serial = itertools.count()

Step = Callable[..., tuple[Tensor, Tensor]]
Watch = Callable[[int, Tensor, Tensor], object]
"""Told after every step: its number from 1, parameters and scores of the pictures that were asked for."""


@dataclass(frozen=True)
class Run:
    """What one batch yields, first axis = pictures, on the CPU.

    Attributes:
        start: the pictures before the first step, uint8 [N, C, H, W].
        images: the pictures after the last step, uint8 [N, C, H, W].
        history: the objective at every step, under that step's random transform, float32 [N, steps].
        fate: "ok", "redirected" (started dead, was brought to life), "dead" or "nonfinite".
    """

    start: Tensor
    images: Tensor
    history: Tensor
    fate: list[str]


@dataclass
class _State:
    """Parameters and moments of a batch."""

    p: Tensor
    m: Tensor
    v: Tensor | None

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


def gradient_function(plan: Plan, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """(p, warp, *selection) to the gradient of the parameters, like p, and the scores [B]."""
    objective, parameters, dtype = plan.objective, plan.parameters, plan.dtype
    color, mean, std = plan.color, plan.mean, plan.std
    program = plan.program if module is plan.module else None

    def through(x: Tensor, selection: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if program is not None:
            h, back = program(x)

            def of_output(h: Tensor) -> tuple[Tensor, Tensor]:
                scores = objective.scores(h, *selection)
                return scores.sum(), scores

            dh, scores = torch.func.grad(of_output, has_aux=True)(h)
            return back(dh), scores

        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            scores = objective.scores(module(x), *selection)
            return scores.sum(), scores

        gradient: tuple[Tensor, Tensor] = torch.func.grad(total, has_aux=True)(x)
        return gradient

    if isinstance(parameters, Normalized):

        def as_it_is(p: Tensor, warp: Tensor | None, *selection: Tensor) -> tuple[Tensor, Tensor]:
            g, scores = through(p.to(dtype, memory_format=torch.channels_last), selection)
            return g.to(p.dtype), scores

        return as_it_is

    def rendered(p: Tensor, warp: Tensor | None, *selection: Tensor) -> tuple[Tensor, Tensor]:
        z = parameters.decode(p)
        g, scores = through(ops.render(z, color, mean, std, warp, dtype), selection)
        return parameters.adjoint(ops.render_backward(g, z, color, std, warp)), scores

    return rendered


def step_function(plan: Plan, module: nn.Module) -> Step:
    """One step: (p, m, v, warp, schedule, *selection) to scores [B] and gradient energies [B].

    p, m and v change in place. `torch.compile(fullgraph=True)` takes it whole.
    """
    gradient, config = gradient_function(plan, module), plan.config
    band = plan.parameters.bands if config.second_moment == "band" else None
    beta1, beta2, weight_decay = config.beta1, config.beta2, config.weight_decay

    def step(
        p: Tensor, m: Tensor, v: Tensor | None, warp: Tensor | None, schedule: Tensor, *selection: Tensor
    ) -> tuple[Tensor, Tensor]:
        dp, scores = gradient(p, warp, *selection)
        energy = ops.ascend_(p, m, v, dp, schedule, band, beta1, beta2, config.epsilon, weight_decay)
        return scores, energy

    return step


def compiled(step: Step, **options: Any) -> Step:
    """The step as one graph of `torch.compile`; a graph break is an error.

    Every plan gets a code object of its own: the compiler counts recompilations per code object and gives
    up at the ninth, which a sweep over layers would reach.
    """
    if isinstance(step, types.FunctionType):
        code = step.__code__.replace(co_name=f"step_{next(_serial)}")
        step = types.FunctionType(code, step.__globals__, code.co_name, step.__defaults__, step.__closure__)
    return torch.compile(step, fullgraph=True, dynamic=False, **options)


class Ascent:
    """Makes pictures of one target, a batch at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        eager = step_function(plan, plan.module)
        self._step = compiled(eager) if plan.config.compile else eager

    @torch.no_grad()
    def run(self, filters: Sequence[int], watch: Watch = lambda *_: None, start: Tensor | None = None) -> Run:
        """Pictures of up to `plan.batch` filters.

        The batch is padded to full, so that a picture's bits do not depend on how many were asked for.

        Args:
            filters: channels of the target.
            watch: called after every step.
            start: parameters to start from, first axis = filters; None draws them.
        """
        try:
            with (
                kept_buffers(),
                backends.using(self.plan.config.kernels),
                torch.autocast(self.plan.device.type, enabled=False),
            ):
                return self._run(filters, watch, start)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.plan.batch} pictures at a time do not fit on {self.plan.device}: pass "
                f"batch={max(1, self.plan.batch // 2)} or a smaller size"
            ) from error

    def _run(self, filters: Sequence[int], watch: Watch, given: Tensor | None) -> Run:
        plan = self.plan
        count = len(filters)
        padded = [*filters, *[filters[0]] * (plan.batch - count)]
        keys = [plan.key(channel) for channel in padded]
        selection = plan.objective.select(padded, plan.device)
        warps = [
            w if w is None else w.to(plan.device)
            for w in warp_table(plan.config, keys, int(plan.config.size or 0))
        ]
        if given is None:
            p = plan.parameters.start(keys).to(plan.device)
        else:
            p = torch.cat([given, given[:1].expand(plan.batch - count, *given.shape[1:])]).to(plan.device)
        start = self._pictures(p)[:count]
        p, fate = self._revive(p, warps, selection)
        state = _State.at(p, plan.config.second_moment, plan.parameters.bands)
        scores, energies = [], []
        for step, (warp, rates) in enumerate(zip(warps, plan.schedule(), strict=True), start=1):
            score, energy = self._step(state.p, state.m, state.v, warp, rates, *selection)
            scores.append(score)
            energies.append(energy)
            watch(step, state.p[:count], score[:count])
        history = torch.stack(scores, 1)[:count].float().cpu()
        finite = torch.stack(energies, 1)[:count].cpu().isfinite().all(1) & history.isfinite().all(1)
        fate = [old if ok else "nonfinite" for old, ok in zip(fate[:count], finite.tolist(), strict=True)]
        return Run(start, self._pictures(state.p)[:count], history, fate)

    def _pictures(self, p: Tensor) -> Tensor:
        """Parameters to 8-bit pictures [B, C, H, W] on the CPU."""
        parameters = self.plan.parameters
        if isinstance(parameters, Normalized):
            picture = parameters.pictures(p).clamp(0, 1)
            return picture.mul(255).round_().to(torch.uint8).contiguous().cpu()
        z = parameters.decode(p)
        identity = torch.zeros_like(self.plan.mean), torch.ones_like(self.plan.std)
        picture = ops.render(z, self.plan.color, *identity, None, torch.float32)
        return picture.mul(255).round_().to(torch.uint8).contiguous().cpu()

    def _revive(
        self, p: Tensor, warps: list[Tensor | None], selection: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[str]]:
        """Brings pictures that start without any gradient to where they have one.

        They take a few steps on a copy of the trunk whose ReLUs let gradient through where they are off; all
        others are left as they are. Takes one step's work where nothing is dead.
        """
        plan = self.plan
        gradient = gradient_function(plan, plan.module)

        def dead(p: Tensor) -> Tensor:
            dp, _ = gradient(p, warps[0], *selection)
            return dp.flatten(1).abs().amax(1) == 0

        started_dead = still_dead = dead(p)
        helped = plan.config.redirect and bool(started_dead.any())
        leaky = redirected(plan.module) if helped else None
        if leaky is not None:
            step = step_function(plan, leaky)
            beats = itertools.cycle(zip(warps, plan.schedule(), strict=True))
            state = _State.at(p.clone(), plan.config.second_moment, plan.parameters.bands)
            for _ in range(_REVIVALS):
                for warp, rates in itertools.islice(beats, _REVIVAL_STEPS):
                    step(state.p, state.m, state.v, warp, rates, *selection)
                keep = still_dead.view(-1, *[1] * (p.ndim - 1))
                p = torch.where(keep, state.p, p)
                still_dead = still_dead & dead(p)
                if not still_dead.any():
                    break
        pairs = zip(started_dead.tolist(), still_dead.tolist(), strict=True)
        return p, ["dead" if now else "redirected" if before else "ok" for before, now in pairs]
