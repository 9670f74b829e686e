"""Batches that come to an end although memory runs out or numbers stop being finite."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..objectives.readout import Asked
from .loop import Ascent, Run, Watch
from .plan import Plan

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Recovered:
    """What a batch came to.

    Attributes:
        run: its pictures.
        dtype: of the network that made each of them: the plan's, or float32 where that gave no finite ones.
        batch: pictures whose gradients were computed together.
    """

    run: Run
    dtype: list[str]
    batch: int


class RecoveringAscent:
    """Makes pictures of one target like `Ascent`, and goes on where it would stop.

    Where memory runs out, the batch starts again with its gradients computed in two halves, and from then on
    all batches do; where that is too much, in quarters, and so on, but never one picture at a time: alone,
    libraries compute a picture in another way and to other bits (docs/reproducibility.md). What is not split
    is as it was: random numbers, padding, update.

    Pictures that are not finite are made once more with the network in float32, if it was not.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ascent = Ascent(plan)
        self._precise: RecoveringAscent | None = None

    @property
    def batch(self) -> int:
        """Pictures whose gradients are computed together."""
        return self.plan.batch // self._ascent.parts

    def run(self, filters: Sequence[Asked], watch: Watch = lambda *_: None) -> Recovered:
        """Pictures of up to `plan.batch` filters, see `Ascent.run`.

        Where the batch starts again, `watch` is told of step 1 again.

        Raises:
            InputError: not even two pictures fit into memory.
        """
        run = self._run(filters, watch)
        dtype = [self.plan.config.dtype] * len(filters)
        broken = [row for row, fate in enumerate(run.fate) if fate == "nonfinite"]
        if broken and self.plan.config.dtype != "float32":
            # With one picture of a group, all of it is made again.
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
            # Here, where the error is gone, and with it the frames that hold the batch's tensors.
            self._halve()

    def _halve(self) -> None:
        gc.collect()
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()
        # Pictures of a group stay together, so a batch is cut into groups at the most.
        before, parts, groups = self.batch, 2 * self._ascent.parts, self.plan.batch // self.plan.group
        while groups % parts and parts < groups:
            parts += 1
        if parts > groups or self.plan.batch // parts < 2:
            alone = before <= self.plan.group  # one picture, or one group that must stay together
            way = "a smaller size" if alone else "batch=1, which is a job of its own, or a smaller size"
            raise InputError(
                f"{before} pictures of {self.plan.config.size} pixels do not fit into the memory of "
                f"{self.plan.device} at a time: pass {way}"
            )
        self._ascent = Ascent(self.plan, parts)
        warnings.warn(
            f"{before} pictures at a time do not fit into memory: going on with {self.batch}", stacklevel=4
        )

    def _remake(self, run: Run, rows: Sequence[int], filters: Sequence[Asked]) -> None:
        """Puts pictures made in float32 in the place of those that are not finite."""
        if self._precise is None:
            self._precise = RecoveringAscent(self.plan.in_float32())
        again = self._precise.run([filters[row] for row in rows]).run
        places = torch.tensor(rows)
        run.images[places], run.history[places] = again.images, again.history
        if run.alpha is not None and again.alpha is not None:
            run.alpha[places] = again.alpha
        for row, fate in zip(rows, again.fate, strict=True):
            run.fate[row] = fate


@contextlib.contextmanager
def told_of_memory(plan: Plan) -> Iterator[None]:
    """Says in one sentence that memory ran out, where nothing can be made smaller to go on.

    Raises:
        InputError: it ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"a picture of {plan.config.size} pixels does not fit into the memory of {plan.device} to be "
            "scored: pass a smaller size or another device"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device; PyTorch has no common error for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
