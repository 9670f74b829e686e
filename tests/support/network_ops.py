"""Calls an op by name."""

from __future__ import annotations

from typing import Any

from cnnvis_fast.kernels import ops


def run(op: str, *arguments: Any) -> Any:
    return getattr(ops, op)(*arguments)
