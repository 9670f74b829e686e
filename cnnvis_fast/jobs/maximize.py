"""`maximize`: pictures of the filters of one layer, or of objectives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..ascent.plan import Plan, make_plan, plan_objectives
from ..config import Config, configure
from ..errors import InputError
from ..images.photos import Photo, Photograph
from ..networks.load import open_model
from ..networks.names import module_order, parse_filters, resolve
from ..networks.preprocessing import Source, describe
from ..objectives.readout import Asked
from ..objectives.terms import form_of
from ..objectives.text import parse, reads_as_objective
from ..objectives.vocabulary import Objective, Unit
from ..progress import progress_bar
from ..results.pictures import Pictures
from .batches import produce
from .identity import job_identity


def maximize(
    model: nn.Module | str,
    layer: str | Objective | Sequence[str | Objective],
    filters: Iterable[int] | int | str | None = None,
    *,
    weights: Any = "DEFAULT",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    start: Photo | Photograph | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Pictures:
    """Makes, for each filter of a layer or each objective, the picture that excites it most (Erhan 2009).

    Args:
        model: a network, or a name for `load_model`. It is never changed.
        layer: dotted module path, `convN` (the N-th convolution) or `logits`; or one or several objectives of
            `cnnvis_fast.objectives`, as such or as text like "conv5:3 + 0.5*conv2:7".
        filters: channels of the layer, as numbers or as text like "0-63,100"; all by default. Not with
            objectives.
        weights: of a network given by name, see `load_model`.
        mean: of the preprocessing per channel, if the network's own is not known.
        std: of the preprocessing per channel.
        start: a photo that the pictures start from, instead of noise.
        progress: whether to show a bar; None shows it on a terminal.
        **options: of `Config`: `preset=` "natural", "strong" or "original", `steps=`, `size=`, `seed=`,
            `batch=`, `device=`, `dtype=`, `compile=`, `objective=` and so on.

    Returns:
        The pictures, in the order of `filters` or of the objectives.

    Raises:
        InputError: (a ValueError) an argument is wrong; nothing was run.
    """
    config = configure(**options)
    wanted = asked_objectives(layer)
    network = open_model(model, weights)
    source = describe(network, mean, std, config.size)
    photo = None if start is None else Photograph.of(start)
    if wanted is not None:
        if filters is not None:
            raise InputError("`filters` are channels of a layer: leave them out where objectives are given")
        wanted = [one.renamed(lambda name: resolve(network, name)) for one in wanted]
        one_layer = plain_channels(wanted)
        if one_layer is None:
            return _maximize_objectives(network, wanted, config, source, photo, progress)
        layer, filters = one_layer
        config = dataclasses.replace(config, objective="channel", position=None)
    plan = make_plan(network, str(layer), config, source, photo)
    chosen = parse_filters(filters, plan.objective.channels, plan.layer)
    job = job_identity(network, source, plan.config, config, photo)
    with progress_bar(len(chosen), plan.layer, progress) as bar:
        parts = []
        for part in produce(plan, job, chosen, bar.reach):
            parts.append(part)
            bar.finish(len(part))
    return Pictures.joined(parts, modules=module_order(network))


def asked_objectives(layer: Any) -> list[Objective] | None:
    """The objectives that stand in place of a layer's name; None for a name.

    Raises:
        InputError: they are of another kind, or there are none.
    """
    if isinstance(layer, str) and not reads_as_objective(layer):
        return None
    several = [layer] if isinstance(layer, str | Objective) else layer
    if not isinstance(several, Iterable) or not (listed := list(several)):
        raise InputError(f"`layer` must be a layer's name, an objective or several of them, got {layer!r}")
    for one in listed:
        if not isinstance(one, str | Objective):
            raise InputError(f"an objective must be of `cnnvis_fast.objectives` or text, got {one!r}")
    return [parse(one) if isinstance(one, str) else one for one in listed]


def plain_channel(objective: Objective) -> Unit | None:
    """The channel that an objective is all about, from noise or whatever all start from; else None."""
    (weight, term), *more = objective.terms
    if more or weight != 1 or not isinstance(term, Unit) or term.position is not None:
        return None
    return None if objective.start is not None or objective.key else term


def plain_channels(objectives: Sequence[Objective]) -> tuple[str, list[int]] | None:
    """Layer and channels where all objectives are single channels of one layer, each once; else None."""
    units = [unit for unit in map(plain_channel, objectives) if unit is not None]
    layers, numbers = {unit.layer for unit in units}, [unit.unit for unit in units]
    same = len(units) == len(objectives) and len(layers) == 1 and len(set(numbers)) == len(numbers)
    return (units[0].layer, numbers) if same else None


def _maximize_objectives(
    network: nn.Module,
    objectives: list[Objective],
    config: Config,
    source: Source,
    photo: Photograph | None,
    progress: bool | None,
) -> Pictures:
    """Pictures of any objectives: those of one form run together."""
    forms: dict[Any, list[int]] = {}
    for number, one in enumerate(objectives):
        unit = plain_channel(one)  # these get the very pictures that their layer's own job makes
        forms.setdefault(form_of(one) if unit is None else unit.layer, []).append(number)
    plans: list[Plan] = []
    asked: list[Sequence[Asked]] = []
    for form, numbers in forms.items():
        members = [objectives[number] for number in numbers]
        if isinstance(form, str):
            channels = dataclasses.replace(config, objective="channel", position=None)
            plan = make_plan(network, form, channels, source, photo)
            units = [unit.unit for unit in map(plain_channel, members) if unit is not None]
            parse_filters(units, plan.objective.channels, plan.layer)
            asked.append(units)
        else:
            places, size = [one.group[0] for one in members], form[1]
            if size > 1 and places != list(range(size)) * (len(places) // size):
                raise InputError(
                    "pictures that differ must be passed whole and in order, as `diverse` gives them"
                )
            plan = plan_objectives(network, members, config, source, photo)
            asked.append(members)
        plans.append(plan)
    job = job_identity(network, source, plans[0].config, config, photo)
    job["objectives"] = [str(one) for one in objectives]
    parts = []
    with progress_bar(len(objectives), "objectives", progress) as bar:
        for plan, some, numbers in zip(plans, asked, forms.values(), strict=True):
            for part in produce(plan, job, some, bar.reach, numbers):
                parts.append(part)
                bar.finish(len(part))
    return Pictures.joined(parts, range(len(objectives)), module_order(network))
