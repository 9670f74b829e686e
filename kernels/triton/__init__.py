"""Kernels written in Triton, for GPUs.

Triton is imported with the first kernel that is asked for, so that a machine without it, or a command that
needs no kernel, pays nothing. With `TRITON_INTERPRET=1` the kernels run in Triton's interpreter and take CPU
tensors: slow, but every test of correctness runs without a GPU.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ._ascend import ascend_
    from ._rectify import max_pool, max_pool_backward, positive, rectify, rectify_backward
    from ._render import render, render_backward
    from ._sums import dot, restrain

__all__ = [
    "ascend_",
    "dot",
    "interpreted",
    "max_pool",
    "max_pool_backward",
    "positive",
    "rectify",
    "rectify_backward",
    "render",
    "render_backward",
    "restrain",
    "why_unavailable",
]

_HOMES = {
    "ascend_": "._ascend",
    "dot": "._sums",
    "render": "._render",
    "render_backward": "._render",
    "restrain": "._sums",
    **dict.fromkeys(
        ("max_pool", "max_pool_backward", "positive", "rectify", "rectify_backward"),
        "._rectify",
    ),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = function  # found at once from now on
    return function


def interpreted() -> bool:
    """Tell whether the kernels run in Triton's interpreter, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_unavailable() -> str | None:
    """Give the reason why the Triton kernels cannot be used, or None if they can."""
    if not torch.cuda.is_available() and not interpreted():
        return "the Triton kernels need a CUDA device, and torch sees none: use auto or reference"
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"the Triton kernels need the package triton, which does not import ({error}): install triton"
    return None
