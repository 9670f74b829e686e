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
from ..images.statistics import DARKEST, Statistics, gray, literature, read_statistics
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
from ..parameterizations.choice import make_parameterization
from ..parameterizations.parameterization import Canvas, Parameterization
from ..program import Program
from .devices import resolve_config
from .execution import Task, build_program, prepare
from .neuron_window import Window, in_window


@dataclass(frozen=True)
class Plan:
    """All that the loop needs to make pictures of one target.

    Attributes:
        config: the configuration with device, dtype, compile, kernels and size resolved.
        source: name, weights and preprocessing of the network.
        layer: canonical name of the target; several names are joined by " and ".
        trunk: the trunk in float32 on the CPU; `module` is its working copy.
        module: the trunk in the working dtype on the device.
        objective: what the pictures are made for, one number per picture.
        parameters: the parameterization.
        canvas: size of the pictures and how the network reads them.
        batch: number of pictures that run together; every run is padded to it.
        example: a batch of one picture, or its window, as the trunk reads it.
        group: number of pictures that must run side by side; 1 where they are independent.
        start: photo that all pictures start from; None for noise or the start of each objective.
        program: `module` as a program; None where autograd runs it.
        window: the part of the network's input that runs; None for all of it.
    """

    config: Config
    source: Source
    layer: str
    trunk: Trunk
    module: nn.Module
    objective: Readout
    parameters: Parameterization
    canvas: Canvas
    batch: int
    example: Tensor
    group: int = 1
    start: Photograph | None = None
    program: Program | None = None
    window: Window | None = None

    @property
    def device(self) -> torch.device:
        """The device that the loop runs on."""
        return torch.device(self.config.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return DTYPES[self.config.dtype]

    @property
    def color(self) -> Tensor:
        """The matrix from z to the logits of the picture's values, [C, C], on the device."""
        return self.canvas.color

    @property
    def mean(self) -> Tensor:
        """The mean of the preprocessing, [C], on the device."""
        return self.canvas.mean

    @property
    def std(self) -> Tensor:
        """The standard deviation of the preprocessing, [C], on the device."""
        return self.canvas.std

    @cached_property
    def stride(self) -> int:
        """The distance in pixels between neighbors in the trunk's output; 1 where that is not a map."""
        with torch.no_grad():
            h = self.trunk.module(self.example.clone())
        first = h[0] if isinstance(h, tuple) else h
        return max(1, round(self.example.shape[-1] / first.shape[-1])) if first.ndim == 4 else 1

    def select(self, asked: Sequence[Asked]) -> tuple[Tensor, ...]:
        """Returns the objective's tensors for pictures that the loop makes, first axis = pictures."""
        return self.objective.in_dtype(self.dtype, *self.objective.select(asked, self.device))

    def read(self, x: Tensor) -> Tensor:
        """Returns what the trunk reads of whole pictures [B, C, H, W]."""
        return x if self.window is None else self.window.cut(x)

    def in_float32(self) -> Plan:
        """Returns the same plan with the network in float32."""
        config = dataclasses.replace(self.config, dtype="float32")
        module = trunks.to_device(self.trunk, torch.float32, self.device)
        program = (
            None if self.program is None else build_program(module, self.example, config, self.trunk.module)
        )
        return dataclasses.replace(self, config=config, module=module, program=program)

    def key(self, asked: Asked) -> str:
        """Returns the key of all random numbers of one picture."""
        if isinstance(asked, int):
            return f"{self.config.seed}/{self.layer}/{asked}"
        number, count = asked.group
        return f"{self.config.seed}/{asked.key or asked}{f' #{number}' if count > 1 and asked.key else ''}"

    def first_parameters(self, asked: Sequence[Asked]) -> Tensor:
        """Returns the parameters that pictures start from, of a photo or drawn, first axis = pictures."""
        rows = []
        for one in asked:
            photo = self.start if isinstance(one, int) or one.start is None else one.start
            if photo is None or not self.parameters.has_z:
                rows.append(self.parameters.start([self.key(one)]).to(self.device))
                continue
            x = network_input(photo.picture, self.source, size=self.config.size).to(self.device)
            logits = torch.logit(x, eps=DARKEST).flatten(2)
            z = torch.matmul(torch.linalg.pinv(self.color), logits).view_as(x)
            rows.append(self.parameters.encode(z).float().contiguous())
        return torch.cat(rows)

    def schedule(self) -> list[Tensor]:
        """Returns the rate and Adam's two bias corrections for each step, float32 [B, 3]."""
        config, rows = self.config, []
        for step in range(config.steps):
            done = step / config.steps
            rate = config.rate * (min(1.0, (1 - done) / 0.3 + 0.1) if config.late_decay else 1)
            rows.append((rate, 1 / (1 - config.beta1 ** (step + 1)), 1 / (1 - config.beta2 ** (step + 1))))
        table = torch.tensor(rows, dtype=torch.float64).float().to(self.device)
        return [row.expand(self.batch, 3).contiguous() for row in table]


@dataclass(frozen=True)
class _Target:
    """What a plan is made for.

    Attributes:
        layers: canonical names of the layers that are read.
        fold: whether a linear layer is folded into the objective, so that the trunk ends before it.
        sample: one whole group of what will be asked for, to try the network with.
        read_out: makes the readout of a trunk, from an example of its input.
    """

    layers: Sequence[str]
    fold: bool
    sample: Sequence[Asked]
    read_out: Callable[[Trunk, Tensor], Readout]

    @property
    def name(self) -> str:
        return " and ".join(self.layers)

    @property
    def single(self) -> str | None:
        """The layer, if it is the only one and not the network's output."""
        return self.layers[0] if len(self.layers) == 1 and self.layers[0] != LOGITS else None


def make_plan(
    model: nn.Module,
    layer: str,
    config: Config,
    source: Source | None = None,
    start: Photograph | None = None,
) -> Plan:
    """Plans the pictures of single channels of one target.

    Args:
        model: the network; it is not changed.
        layer: dotted name, `convN` or `logits`.
        config: configuration from `configure`.
        source: the network's source; described here if not given.
        start: photo that all pictures start from; None for noise.

    Raises:
        InputError: the target, the size, the device or the objective does not fit the network.
    """
    name = resolve(model, layer)

    def read_out(trunk: Trunk, example: Tensor) -> Readout:
        return make_readout(config.objective, trunk, config.position, example, name, _module(model, name))

    return _plan(model, _Target([name], True, [0], read_out), config, source or describe(model), start)


def plan_objectives(
    model: nn.Module,
    objectives: Sequence[Objective],
    config: Config,
    source: Source | None = None,
    start: Photograph | None = None,
) -> Plan:
    """Plans the pictures of objectives of one form, as `form_of` returns it.

    Args:
        model: the network; it is not changed.
        objectives: objectives with canonical names of their layers.
        config: configuration from `configure`; its `objective` and `position` are not read.
        source: the network's source; described here if not given.
        start: photo that pictures start from whose objective names none.

    Raises:
        InputError: the size, the device or an objective does not fit the network, or a layer does not have
            the channel, the vector or the position asked for.
    """
    form, layers = form_of(objectives[0]), objectives[0].layers
    described = source or describe(model)
    modules = {name: _module(model, name) for name in layers}

    def read_out(trunk: Trunk, example: Tensor) -> Readout:
        with torch.no_grad():
            outputs = outputs_of(layers, trunk.module(example.clone()), trunk.tail, modules)

        @cache
        def view(photo: Photograph, layer: str) -> Tensor:
            x = network_input(photo.picture, described, size=example.shape[-1])
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (described.mean, described.std))
            with torch.no_grad():
                return outputs[layer].of(trunk.module((x - mean) / std))[0].float()

        expression = Expression(form, outputs, view)
        for objective in objectives:  # an objective that does not fit is refused before anything runs
            expression.select([objective], torch.device("cpu"))
        return expression

    target = _Target(layers, linear(form), list(objectives[: form[1]]), read_out)
    return _plan(model, target, config, described, start)


def _module(model: nn.Module, name: str) -> nn.Module | None:
    return None if name == LOGITS else model.get_submodule(name)


def _plan(model: nn.Module, target: _Target, asked: Config, source: Source, start: Photograph | None) -> Plan:
    config = resolve_config(asked, source)
    _warn_of_reference(asked.kernels, config, len(source.mean))
    canvas = _canvas(config, source)

    network = trunks.frozen_copy(model)
    on_cpu = torch.device(config.device).type == "cpu"
    check_fits(network, len(source.mean), canvas.size, target.single, gradient=on_cpu)
    example = torch.zeros(1, len(source.mean), canvas.size, canvas.size) + torch.linspace(-1, 1, canvas.size)
    trunk = trunks.cut_up(network, target.layers, example, target.fold)
    if config.compile and not trunk.traced:
        raise InputError(
            f"{source.name} cannot be traced up to {target.name}, so it cannot be compiled: drop compile"
        )

    objective, window = target.read_out(trunk, example), None
    if target.single and trunk.traced and isinstance(objective, Folded | Selected) and objective.position:
        window, objective = in_window(network, target.single, trunk, objective, example)
        example = example if window is None else window.cut(example)

    task = Task(source.name, target.name, trunk, objective, target.sample, example)
    prepared = prepare(task, config, asked)
    parameters = make_parameterization(config, canvas)
    if start is not None and not parameters.encodes:
        raise InputError(f'`parameters` "{config.parameters}" cannot start from a photo: use "fourier"')
    return Plan(
        config=prepared.config,
        source=source,
        layer=target.name,
        trunk=trunk,
        module=prepared.module,
        objective=objective,
        parameters=parameters,
        canvas=canvas,
        batch=prepared.batch,
        example=example,
        group=len(target.sample),
        start=start,
        program=prepared.program,
        window=window,
    )


def _canvas(config: Config, source: Source) -> Canvas:
    channels, device = len(source.mean), torch.device(config.device)
    statistics = _statistics(config, channels)
    mean, std = torch.tensor(source.mean).to(device), torch.tensor(source.std).to(device)
    return Canvas(config.size or source.size, statistics, _color(config, statistics).to(device), mean, std)


def _statistics(config: Config, channels: int) -> Statistics:
    if config.statistics is None:
        return literature(channels)
    statistics = read_statistics(config.statistics)
    if channels != len(statistics.color):
        raise InputError(
            f"{config.statistics} has {len(statistics.color)} channels, and the network reads {channels}: "
            "leave `statistics` out"
        )
    return statistics


def _color(config: Config, statistics: Statistics) -> Tensor:
    channels = len(statistics.color)
    if config.color == "none":
        return torch.eye(channels)
    return gray(channels) if config.color == "gray" else statistics.color


def _warn_of_reference(asked: str, config: Config, channels: int) -> None:
    if config.kernels != "reference":
        return
    device = torch.device(config.device)
    if asked == "auto" and (reason := backends.why_reference(device, channels)):
        warnings.warn(f"plain PyTorch runs the loop's operations, more slowly: {reason}", stacklevel=5)
    if device.type == "cuda" and config.transforms == "affine":
        warnings.warn(
            "on CUDA devices PyTorch's adjoint of the affine warp sums in no fixed order, so pictures may "
            "differ in their last bits from run to run: use kernels='triton', which gives the same bits",
            stacklevel=5,
        )
