"""Checks whether Triton's interpreter can run kernels here; import it only if Triton is installed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _loop_kernel(count_ptr):  # type: ignore[no-untyped-def]
    for _ in range(tl.load(count_ptr)):
        pass


def why_not() -> str | None:
    """Returns why the interpreter cannot run loops, or None.

    Triton 3.6 reads the bounds of a loop in a way that NumPy 2.4 no longer allows.
    """
    try:
        _loop_kernel[(1,)](torch.ones(1, dtype=torch.int32))
    except Exception as error:
        return f"Triton's interpreter runs no loops: {error}"
    return None
