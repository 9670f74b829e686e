"""Finishes batches although memory runs out or numbers stop being finite."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..objectives.readout import Asked
from . import status
from .loop import Ascent, Run, Watch
from .plan import Plan

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Recovered:
    """The result of a batch.

    Attributes:
        run: pictures of the batch.
        dtype: dtype of the network that made each picture: the plan's, or float32 where that gave no finite
            one.
        batch: number of pictures whose gradients were computed together.
    """

    run: Run
    dtype: list[str]
    batch: int


class RecoveringAscent:
    """Makes pictures of one target like `Ascent`, and continues where `Ascent` would stop.

    Where memory runs out, the batch starts again with its gradient computed in two parts, and later batches
    run in two parts as well; where that is too much, in four parts, and so on, but never one picture at a
    time: libraries compute a single picture differently, with other bits (docs/reproducibility.md). Random
    numbers, padding and update do not change.

    Pictures that are not finite are made again with the network in float32, if it was not.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ascent = Ascent(plan)
        self._precise: RecoveringAscent | None = None

    @property
    def batch(self) -> int:
        """The number of pictures whose gradients are computed together."""
        return self.plan.batch // self._ascent.parts

    def run(self, filters: Sequence[Asked], watch: Watch = lambda *_: None) -> Recovered:
        """Makes pictures of up to `plan.batch` filters or objectives; groups whole and in order.

        `watch` is called after every step. Where the batch starts again, it is called with step 1 again.

        Raises:
            InputError: not even two pictures fit into memory.
        """
        run = self._run(filters, watch)
        dtype = [self.plan.config.dtype] * len(filters)
        broken = [row for row, ended in enumerate(run.status) if ended == status.NONFINITE]
        if broken and self.plan.config.dtype != "float32":
            # If one picture of a group is broken, the whole group is made again.
            size = self.plan.group
            broken = sorted({row // size * size + k for row in broken for k in range(size)})
            self._remake(run, broken, filters)
            for row in broken:
                dtype[row] = "float32"
        return Recovered(run, dtype, self.batch)

    def _run(self, filters: Sequence[Asked], watch: Watch) -> Run:
        while True:
            try:
                return self._ascent.run(filters, watch)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # Not in the handler: the error holds the frames that hold the batch's tensors.
            self._halve()

    def _halve(self) -> None:
        gc.collect()
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()
        # Pictures of a group stay together, so there are at most as many parts as groups.
        before, parts, groups = self.batch, 2 * self._ascent.parts, self.plan.batch // self.plan.group
        while groups % parts and parts < groups:
            parts += 1
        if parts > groups or self.plan.batch // parts < 2:
            alone = before <= self.plan.group  # one picture, or one group that must stay together
            way = "a smaller size" if alone else "batch=1, which is another job, or a smaller size"
            raise InputError(
                f"{before} pictures of {self.plan.config.size} pixels do not fit into the memory of "
                f"{self.plan.device} together: pass {way}"
            )
        self._ascent = Ascent(self.plan, parts)
        warnings.warn(
            f"{before} pictures at a time do not fit into memory: going on with {self.batch}", stacklevel=4
        )

    def _remake(self, run: Run, rows: Sequence[int], filters: Sequence[Asked]) -> None:
        """Replaces pictures that are not finite by pictures made in float32."""
        if self._precise is None:
            self._precise = RecoveringAscent(self.plan.in_float32())
        again = self._precise.run([filters[row] for row in rows]).run
        places = torch.tensor(rows)
        run.images[places], run.history[places] = again.images, again.history
        if run.alpha is not None and again.alpha is not None:
            run.alpha[places] = again.alpha
        for row, ended in zip(rows, again.status, strict=True):
            run.status[row] = ended


@contextlib.contextmanager
def explained_lack_of_memory(plan: Plan) -> Iterator[None]:
    """Turns a lack of memory while pictures are scored into one sentence.

    Raises:
        InputError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"a picture of {plan.config.size} pixels does not fit into the memory of {plan.device} for "
            "scoring: pass a smaller size or another device"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Returns whether memory ran out, on any device; PyTorch has no common error for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
