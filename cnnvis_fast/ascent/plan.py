"""Decides, once per target, how its pictures are made: device, dtype, compilation, batch, schedule."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor, nn

from ..config import Config
from ..errors import InputError
from ..images.photos import Photograph
from ..images.statistics import Statistics, grey, literature, read_statistics
from ..kernels import backends
from ..networks import trunk as trunks
from ..networks.memory import check_fits
from ..networks.names import LOGITS, resolve
from ..networks.preprocessing import Source, describe, network_input
from ..networks.trunk import DTYPES, Trunk
from ..objectives.folded import Folded, Selected, make_readout
from ..objectives.readout import Asked, Readout
from ..objectives.terms import Expression, form_of, linear, outputs_of
from ..objectives.vocabulary import Objective
from ..parameterizations.choice import Parameters, _parameters
from ..parameterizations.cppn import Cppn
from ..parameterizations.pixels import Normalized
from ..program import Program
from .batch_size import batch_rule
from .devices import settle
from .execution import picture_bytes, program_of, working_copy, working_program
from .neuron_window import Window, in_window

_DARKEST = 0.02  # of a photo that a picture starts from: the logistic function has no inverse at 0 and 1


@dataclass(frozen=True)
class Plan:
    """All that the loop needs to make pictures of one target.

    Attributes:
        config: with device, dtype, compile, kernels and size settled.
        source: name, weights and preprocessing of the network.
        layer: canonical name of the target; of several, joined by " and ".
        trunk: float32 on the CPU; `module` is its working copy.
        module: the trunk in the working dtype on the device.
        objective: what the pictures are made for, one number per picture.
        parameters: the parameterization.
        color: [C, C], mean and std: [C], on the device.
        batch: pictures that run together; every run is padded to it.
        example: a batch of one picture, or its window, as the trunk reads it.
        group: pictures that must run side by side; 1 for none.
        start: photo that all pictures start from; None for noise, or what each objective says.
        program: of `module`; None where autograd runs it.
        window: of the network's input, which alone is run; None for all of it.
    """

    config: Config
    source: Source
    layer: str
    trunk: Trunk
    module: nn.Module
    objective: Readout
    parameters: Parameters
    color: Tensor
    mean: Tensor
    std: Tensor
    batch: int
    example: Tensor
    group: int = 1
    start: Photograph | None = None
    program: Program | None = None
    window: Window | None = None

    @property
    def device(self) -> torch.device:
        """Where the loop runs."""
        return torch.device(self.config.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        return DTYPES[self.config.dtype]

    @cached_property
    def stride(self) -> int:
        """Pixels between neighbours of what the trunk yields; 1 where that is no map."""
        with torch.no_grad():
            h = self.trunk.module(self.example.clone())
        first = h[0] if isinstance(h, tuple) else h
        return max(1, round(self.example.shape[-1] / first.shape[-1])) if first.ndim == 4 else 1

    def select(self, asked: Sequence[Asked]) -> tuple[Tensor, ...]:
        """The objective's tensors for pictures that the loop makes, first axis = pictures."""
        return self.objective.in_dtype(self.dtype, *self.objective.select(asked, self.device))

    def read(self, x: Tensor) -> Tensor:
        """What the trunk reads of whole pictures [B, C, H, W]."""
        return x if self.window is None else self.window.of(x)

    def in_float32(self) -> Plan:
        """The same, but the network in float32."""
        config = dataclasses.replace(self.config, dtype="float32")
        module = trunks.to_device(self.trunk, torch.float32, self.device)
        program = (
            None if self.program is None else program_of(module, self.example, config, self.trunk.module)
        )
        return dataclasses.replace(self, config=config, module=module, program=program)

    def key(self, asked: Asked) -> str:
        """Key of all random numbers of one picture."""
        if isinstance(asked, int):
            return f"{self.config.seed}/{self.layer}/{asked}"
        number, count = asked.group
        return f"{self.config.seed}/{asked.key or asked}{f' #{number}' if count > 1 and asked.key else ''}"

    def first_parameters(self, asked: Sequence[Asked]) -> Tensor:
        """The parameters that pictures start from, first axis = pictures: of a photo or drawn."""
        rows = []
        for one in asked:
            photo = self.start if isinstance(one, int) or one.start is None else one.start
            if photo is None or isinstance(self.parameters, Normalized):
                rows.append(self.parameters.start([self.key(one)]).to(self.device))
                continue
            x = network_input(photo.picture, self.source, size=self.config.size).to(self.device)
            logits = torch.logit(x, eps=_DARKEST).flatten(2)
            z = torch.matmul(torch.linalg.pinv(self.color), logits).view_as(x)
            rows.append(self.parameters.encode(z).float().contiguous())
        return torch.cat(rows)

    def schedule(self) -> list[Tensor]:
        """Per step: rate and Adam's two bias corrections, float32 [B, 3]."""
        config, rows = self.config, []
        for step in range(config.steps):
            done = step / config.steps
            rate = config.rate * (min(1.0, (1 - done) / 0.3 + 0.1) if config.late_decay else 1)
            rows.append((rate, 1 / (1 - config.beta1 ** (step + 1)), 1 / (1 - config.beta2 ** (step + 1))))
        table = torch.tensor(rows, dtype=torch.float64).float().to(self.device)
        return [row.expand(self.batch, 3).contiguous() for row in table]


def make_plan(
    model: nn.Module,
    layer: str,
    config: Config,
    source: Source | None = None,
    start: Photograph | None = None,
) -> Plan:
    """Plans the pictures of single channels of one target.

    Args:
        model: the network; not changed.
        layer: dotted name, `convN` or `logits`.
        config: from `configure`.
        source: the network's; described anew if not given.
        start: photo that all pictures start from; None for noise.

    Raises:
        InputError: the target, the size, the device or the objective does not fit the network.
    """
    name = resolve(model, layer)

    def readout(trunk: Trunk, example: Tensor, _source: Source) -> Readout:
        return make_readout(config.objective, trunk, config.position, example, name, _module(model, name))

    return _plan(model, [name], config, source, start, fold=True, readout=readout, sample=[0])


def plan_objectives(
    model: nn.Module,
    objectives: Sequence[Objective],
    config: Config,
    source: Source | None = None,
    start: Photograph | None = None,
) -> Plan:
    """Plans the pictures of objectives of one form (see `expressions.form_of`).

    Args:
        model: the network; not changed.
        objectives: with canonical names of their layers.
        config: from `configure`; its `objective` and `position` are not read.
        source: the network's; described anew if not given.
        start: photo that pictures start from whose objective names none.

    Raises:
        InputError: as for `make_plan`; a channel, a vector or a position that a layer does not have.
    """
    form, layers = form_of(objectives[0]), objectives[0].layers
    modules = {name: _module(model, name) for name in layers}

    def readout(trunk: Trunk, example: Tensor, source: Source) -> Readout:
        with torch.no_grad():
            outputs = outputs_of(layers, trunk.module(example.clone()), trunk.tail, modules)

        @cache
        def view(photo: Photograph, layer: str) -> Tensor:
            x = network_input(photo.picture, source, size=example.shape[-1])
            mean, std = torch.tensor(source.mean).view(-1, 1, 1), torch.tensor(source.std).view(-1, 1, 1)
            with torch.no_grad():
                return outputs[layer].of(trunk.module((x - mean) / std))[0].float()

        found = Expression(form, outputs, view)
        for objective in objectives:  # what does not fit is told before anything runs
            found.select([objective], torch.device("cpu"))
        return found

    group = form[1]
    return _plan(
        model, layers, config, source, start, linear(form), readout, list(objectives[:group]), group=group
    )


def _module(model: nn.Module, name: str) -> nn.Module | None:
    return None if name == LOGITS else model.get_submodule(name)


def _plan(
    model: nn.Module,
    layers: Sequence[str],
    config: Config,
    source: Source | None,
    start: Photograph | None,
    fold: bool,
    readout: Callable[[Trunk, Tensor, Source], Readout],
    sample: Sequence[Asked],
    group: int = 1,
) -> Plan:
    source = source or describe(model)
    asked = config
    config = settle(config, source)
    name = " and ".join(layers)
    device = torch.device(config.device)
    _warn_of_reference(asked.kernels, config, device, len(source.mean))
    size, channels = config.size or source.size, len(source.mean)
    last = layers[0] if len(layers) == 1 and layers[0] != LOGITS else None
    copy = trunks.frozen_copy(model)
    check_fits(copy, channels, size, last, gradient=device.type == "cpu")
    example = torch.zeros(1, channels, size, size) + torch.linspace(-1, 1, size)
    trunk = trunks.cut_up(copy, layers, example, fold)
    if config.compile and not trunk.traced:
        raise InputError(
            f"{source.name} cannot be traced up to {name}, so it cannot be compiled: drop compile"
        )
    objective, window = readout(trunk, example, source), None
    if last and trunk.traced and isinstance(objective, Folded | Selected) and objective.position:
        window, objective = in_window(copy, last, trunk, objective, example)
        example = example if window is None else window.of(example)
    may_change = asked.dtype == "auto"
    module, config = working_copy(trunk, objective, sample, example, config, source.name, may_change)
    mean, std = torch.tensor(source.mean).to(device), torch.tensor(source.std).to(device)
    statistics = _statistics(config, channels)
    if config.program and not trunk.traced and asked.program != "auto":
        raise InputError(f"{source.name} cannot be traced up to {name}, so it is no program: drop program")
    program = None
    if config.program and trunk.traced:
        program = working_program(module, example, config, trunk.module, source.name, asked.program == "auto")
    config = dataclasses.replace(config, program=program is not None)
    batch = config.batch or batch_rule(device, picture_bytes(trunk, program, example, config))
    plan = Plan(
        program=program,
        window=window,
        config=config,
        source=source,
        layer=name,
        trunk=trunk,
        module=module,
        objective=objective,
        parameters=_parameters(config, size, statistics, mean, std),
        color=_colour(config, statistics).to(device),
        mean=mean,
        std=std,
        batch=max(1, batch // group) * group,
        example=example,
        group=group,
        start=start,
    )
    if start is not None and isinstance(plan.parameters, Normalized):
        raise InputError('`parameters` "normalized" cannot start from a photo: use "fourier"')
    if start is not None and isinstance(plan.parameters, Cppn):
        plan.parameters.encode(mean)
    return plan


def _statistics(config: Config, channels: int) -> Statistics:
    if config.statistics is None:
        return literature(channels)
    statistics = read_statistics(config.statistics)
    if channels != len(statistics.colour):
        raise InputError(
            f"{config.statistics} is of {len(statistics.colour)} channels, and the network reads {channels}: "
            "leave `statistics` out"
        )
    return statistics


def _colour(config: Config, statistics: Statistics) -> Tensor:
    channels = len(statistics.colour)
    if config.color == "none":
        return torch.eye(channels)
    return grey(channels) if config.color == "gray" else statistics.colour


def _warn_of_reference(asked: str, config: Config, device: torch.device, channels: int) -> None:
    if config.kernels != "reference":
        return
    if asked == "auto" and (reason := backends.why_reference(device, channels)):
        warnings.warn(f"plain PyTorch runs the loop's operations, more slowly: {reason}", stacklevel=5)
    if device.type == "cuda" and config.transforms == "affine":
        warnings.warn(
            "on CUDA devices PyTorch's adjoint of the affine warp sums in no fixed order: pictures may "
            "differ in their last bits from run to run; kernels='triton' repeats itself",
            stacklevel=5,
        )
