"""`maximize`: makes pictures of the filters of one layer, or of objectives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..ascent.plan import Plan, make_plan, plan_objectives
from ..config import configure
from ..errors import InputError
from ..images.photos import Photo, Photograph
from ..networks.load import open_model
from ..networks.names import module_order, parse_filters, resolve
from ..networks.preprocessing import describe
from ..objectives.readout import Asked
from ..objectives.terms import form_of
from ..objectives.text import parse, reads_as_objective
from ..objectives.vocabulary import Objective, Unit
from ..progress import progress_bar
from ..results.pictures import Pictures
from .batches import produce
from .identity import job_identity
from .job import Job


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
        model: a network, which is never changed, or a name for `load_model`.
        layer: dotted module path, `convN` (the N-th convolution) or `logits`; or one or several objectives of
            `cnnvis_fast.objectives`, as objects or as text like "conv5:3 + 0.5*conv2:7".
        filters: channels of the layer, as numbers or as text like "0-63,100"; all by default. Objectives take
            none.
        weights: weights of a network given by name: "DEFAULT", torchvision weights or their name, a tag of
            timm's, None or "none" for random weights, or the path of a file.
        mean: mean per channel of the preprocessing, if the network's own is not known.
        std: standard deviation per channel of the preprocessing.
        start: photo that the pictures start from, instead of noise.
        progress: whether to show a progress bar; None shows it only on a terminal.
        **options: fields of `Config`: `preset=` "natural", "strong" or "original", `steps=`, `size=`,
            `seed=`, `batch=`, `device=`, `dtype=`, `compile=`, `objective=` and so on.

    Returns:
        The pictures, in the order of `filters` or of the objectives.

    Raises:
        InputError: (a ValueError) an argument is wrong; nothing has run.
    """
    config = configure(**options)
    wanted = asked_objectives(layer)
    network = open_model(model, weights)
    source = describe(network, mean, std, config.size)
    job = Job(network, source, config, None if start is None else Photograph.of(start))
    if wanted is not None:
        if filters is not None:
            raise InputError("`filters` are channels of a layer: leave them out where objectives are given")
        wanted = [one.renamed(lambda name: resolve(network, name)) for one in wanted]
        one_layer = plain_channels(wanted)
        if one_layer is None:
            return _maximize_objectives(job, wanted, progress)
        layer, filters = one_layer
        job = job.for_channels()
    plan = make_plan(network, str(layer), job.config, source, job.start)
    chosen = parse_filters(filters, plan.objective.channels, plan.layer)
    identity = job_identity(job, plan.config)
    with progress_bar(len(chosen), plan.layer, progress) as bar:
        parts = []
        for part in produce(plan, identity, chosen, bar.reach):
            parts.append(part)
            bar.finish(len(part))
    return Pictures.joined(parts, modules=module_order(network))


def asked_objectives(layer: Any) -> list[Objective] | None:
    """Returns the objectives given in place of a layer's name; None for a name.

    Raises:
        InputError: something else was given, or nothing.
    """
    if isinstance(layer, str) and not reads_as_objective(layer):
        return None
    several = [layer] if isinstance(layer, str | Objective) else layer
    if not isinstance(several, Iterable) or not (listed := list(several)):
        raise InputError(f"`layer` must be a layer's name or one or more objectives, got {layer!r}")
    for one in listed:
        if not isinstance(one, str | Objective):
            raise InputError(f"an objective must come from `cnnvis_fast.objectives` or be text, got {one!r}")
    return [parse(one) if isinstance(one, str) else one for one in listed]


def plain_channel(objective: Objective) -> Unit | None:
    """Returns the channel if the objective is that channel and nothing else; else None.

    Weight, position, start or random numbers of its own make it something else.
    """
    (weight, term), *more = objective.terms
    if more or weight != 1 or not isinstance(term, Unit) or term.position is not None:
        return None
    return None if objective.start is not None or objective.key else term


def plain_channels(objectives: Sequence[Objective]) -> tuple[str, list[int]] | None:
    """Returns layer and channels if all objectives are different single channels of one layer; else None."""
    units = [unit for unit in map(plain_channel, objectives) if unit is not None]
    layers, numbers = {unit.layer for unit in units}, [unit.unit for unit in units]
    same = len(units) == len(objectives) and len(layers) == 1 and len(set(numbers)) == len(numbers)
    return (units[0].layer, numbers) if same else None


def _maximize_objectives(job: Job, objectives: list[Objective], progress: bool | None) -> Pictures:
    """Makes pictures of any objectives; those of one form run together."""
    forms: dict[Any, list[int]] = {}
    for number, one in enumerate(objectives):
        unit = plain_channel(one)  # these get the same pictures that a job of their layer makes
        forms.setdefault(form_of(one) if unit is None else unit.layer, []).append(number)
    plans: list[Plan] = []
    asked: list[Sequence[Asked]] = []
    for form, numbers in forms.items():
        members = [objectives[number] for number in numbers]
        if isinstance(form, str):
            plan = make_plan(job.network, form, job.for_channels().config, job.source, job.start)
            units = [unit.unit for unit in map(plain_channel, members) if unit is not None]
            parse_filters(units, plan.objective.channels, plan.layer)
            asked.append(units)
        else:
            places, size = [one.group[0] for one in members], form[1]
            if size > 1 and places != list(range(size)) * (len(places) // size):
                raise InputError(
                    "the objectives of one `diverse` must be passed all together, in the order it gives them"
                )
            plan = plan_objectives(job.network, members, job.config, job.source, job.start)
            asked.append(members)
        plans.append(plan)
    identity = job_identity(job, plans[0].config)
    identity["objectives"] = [str(one) for one in objectives]
    parts = []
    with progress_bar(len(objectives), "objectives", progress) as bar:
        for plan, some, numbers in zip(plans, asked, forms.values(), strict=True):
            for part in produce(plan, identity, some, bar.reach, numbers):
                parts.append(part)
                bar.finish(len(part))
    return Pictures.joined(parts, range(len(objectives)), module_order(job.network))
