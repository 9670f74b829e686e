"""The device that a test of Triton's kernels runs on."""

from __future__ import annotations

import os
from functools import cache

import pytest
from support.devices import DEVICES

from cnnvis_fast.kernels import triton


@cache
def why_not_interpreted() -> str | None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "with a CUDA device there, kernels are compiled: run `pytest -m gpu`"
    reason = triton.why_unavailable()
    if reason is None:
        from support import interpreter

        reason = interpreter.why_not()
    return reason


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cpu" and (reason := why_not_interpreted()):
        pytest.skip(reason)
    return name
