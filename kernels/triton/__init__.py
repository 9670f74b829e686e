"""Kernels written in Triton, for GPUs.

Triton is imported when the first kernel is used, so a machine without Triton, or a command without kernels,
pays nothing. With `TRITON_INTERPRET=1` the kernels run in Triton's interpreter on CPU tensors: slowly, but
every correctness test runs without a GPU.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ._ascend import ascend_
    from ._pooling import max_pool, max_pool_backward
    from ._rectify import positive, rectify, rectify_backward
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
    "max_pool": "._pooling",
    "max_pool_backward": "._pooling",
    "positive": "._rectify",
    "rectify": "._rectify",
    "rectify_backward": "._rectify",
    "render": "._render",
    "render_backward": "._render",
    "restrain": "._sums",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = function  # later look-ups find it directly
    return function


def interpreted() -> bool:
    """Returns whether the kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_unavailable() -> str | None:
    """Returns why the Triton kernels cannot be used, or None if they can."""
    if not torch.cuda.is_available() and not interpreted():
        return "the Triton kernels need a CUDA device, and torch sees none: use auto or reference"
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"the Triton kernels need the package triton, which does not import ({error}): install triton"
    return None
