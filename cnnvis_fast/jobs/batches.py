"""Makes pictures batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ..ascent.plan import Plan
from ..ascent.recovery import RecoveringAscent, explained_lack_of_memory
from ..ascent.status import after_scoring
from ..objectives.readout import Asked
from ..results.pictures import OBJECTIVES, Pictures
from ..results.scores import Scorer


def produce(
    plan: Plan,
    identity: dict[str, Any],
    asked: Sequence[Asked],
    reach: Callable[[float], object] = lambda _: None,
    numbers: Sequence[int] | None = None,
) -> Iterator[Pictures]:
    """Runs the ascent and yields the pictures of each batch when it is done.

    Args:
        plan: plan of channels or of objectives.
        identity: what the pictures are a function of.
        asked: channels or objectives.
        reach: called after every step with the number of pictures of this batch that are done, which may be a
            fraction.
        numbers: numbers of the objectives; None for channels.
    """
    ascent, scorer = RecoveringAscent(plan), Scorer(plan)
    for first in range(0, len(asked), plan.batch):
        chunk = asked[first : first + plan.batch]

        def watch(step: int, *_: object, count: int = len(chunk)) -> None:
            reach(count * step / plan.config.steps)

        made = ascent.run(chunk, watch)
        run = made.run
        with explained_lack_of_memory(plan):
            start, scores = scorer.scores(run.start, chunk), scorer.scores(run.images, chunk)
            noise = scorer.noise_scores(chunk)
        status = [
            after_scoring(*one) for one in zip(run.status, start.tolist(), scores.tolist(), strict=True)
        ]
        channels = [one for one in chunk if isinstance(one, int)]
        yield Pictures(
            plan=plan,
            job=identity,
            robust_score=functools.partial(scorer.robust_scores, filters=chunk),
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
    """Returns sums of magnitudes [N, H, W] as shares in [0, 1] of each picture's 99th percentile."""
    top = gathered.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return (gathered / top[:, None, None]).clamp(0, 1)
