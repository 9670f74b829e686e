"""The peak memory of a run, measured by watching which tensors live at the same time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], object]) -> int:
    """Returns the most bytes that tensors made by `work` take at the same time.

    Memory that a library takes for itself while one operation runs is not counted.
    """
    with _Watch() as watch, torch.no_grad():
        work()
    return watch.peak


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living, self.peak = 0, 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        before = {value.untyped_storage()._cdata for value in given if _has_storage(value)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if _has_storage(value) and value.untyped_storage()._cdata not in before:
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage not in self.known:
            self.known.add(storage)
            self.living += storage.nbytes()
            self.peak = max(self.peak, self.living)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, count: int) -> None:
        self.living -= count


def _has_storage(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided
