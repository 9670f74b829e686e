"""Makes pictures batch by batch, and tells what their bits are a function of."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .config import Config
from .diagnostics import preprocessing_note
from .models import Source, structure_digest, weights_digest
from .natural import read_statistics
from .objectives import Photograph
from .pictures import OBJECTIVES, Pictures
from .plan import Plan
from .quality import Scorer
from .readouts import Asked
from .recovery import RecoveringAscent, told_of_memory


def produce(
    plan: Plan,
    job: dict[str, Any],
    asked: Sequence[Asked],
    reach: Callable[[float], object] = lambda _: None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Pictures]:
    """Yields the pictures of each batch as it is done.

    Args:
        plan: of channels, or of objectives.
        job: what the pictures are a function of.
        asked: channels or objectives.
        reach: told after every step how many pictures of this batch are done, broken ones too.
        numbers: of objectives.
    """
    ascent, scorer = RecoveringAscent(plan), Scorer(plan)
    for first in range(0, len(asked), plan.batch):
        chunk = asked[first : first + plan.batch]

        def watch(step: int, *_: object, count: int = len(chunk)) -> None:
            reach(count * step / plan.config.steps)

        made = ascent.run(chunk, watch)
        run = made.run
        with told_of_memory(plan):
            start, scores = scorer.scores(run.start, chunk), scorer.scores(run.images, chunk)
            noise = scorer.noise_scores(chunk)
        status = [
            "stalled" if fate in ("ok", "redirected") and not end > begin else fate
            for fate, begin, end in zip(run.fate, start.tolist(), scores.tolist(), strict=True)
        ]
        channels = [one for one in chunk if isinstance(one, int)]
        yield Pictures(
            plan,
            job,
            functools.partial(scorer.robust_scores, filters=chunk),
            layer=plan.layer if numbers is None else OBJECTIVES,
            filters=channels if numbers is None else list(numbers[first : first + plan.batch]),
            units=[f"{plan.layer}:{one}" if isinstance(one, int) else str(one) for one in chunk],
            pixels=run.images,
            start_scores=start,
            scores=scores,
            noise_scores=noise,
            status=status,
            history=run.history,
            alpha=None if run.alpha is None else _normalized_alpha(run.alpha),
            dtype=made.dtype,
            batch=made.batch,
        )


def _normalized_alpha(gathered: Tensor) -> Tensor:
    """Sums of magnitudes [N, H, W] as shares in [0, 1] of each picture's 99th percentile."""
    top = gathered.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return (gathered / top[:, None, None]).clamp(0, 1)


def job_identity(
    model: nn.Module, source: Source, settled: Config, asked: Config, start: Photograph | None = None
) -> dict[str, Any]:
    """Everything that a picture's bits are a function of, but for its layer and filter.

    Args:
        model: the network, for its weights.
        source: its name and preprocessing.
        settled: the configuration with device, dtype, compile, kernels and size decided.
        asked: the configuration as it came, for the batch.
        start: photo that all pictures start from.
    """
    config = dataclasses.asdict(settled)
    if settled.statistics is not None:
        config["statistics"] = read_statistics(settled.statistics).digest
    config["batch"] = asked.batch or "auto"
    device = torch.device(settled.device)
    config["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if config["device"] == "cpu":
        config["threads"] = torch.get_num_threads()
    note = preprocessing_note(model, source, int(settled.size or source.size))
    if note:
        warnings.warn(note, stacklevel=3)
    return {
        **({"notes": [note]} if note else {}),
        **({"start": start.digest} if start else {}),
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": weights_digest(model),
        "structure_sha256": structure_digest(model),
        "mean": list(source.mean),
        "std": list(source.std),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in ("cnnvis_fast", "torch")},
    }
