"""The tolerance of all tests of low-precision results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SUM_TERMS = 8
"""Rounding errors that may add up in one number of the plain float32 code, in units of the largest term."""


def assert_as_exact(found: Tensor, reference: Tensor, exact: Tensor) -> None:
    """Checks that a kernel errs at most twice as much as the plain code in the same dtype, plus one rounding.

    Args:
        found: result of the kernel.
        reference: result of `kernels.reference` in the same dtype.
        exact: result in float64, from the same (low-precision) inputs.
    """
    assert found.dtype == reference.dtype
    assert found.shape == reference.shape == exact.shape
    rounding = torch.finfo(found.dtype).eps * float(exact.abs().max())
    allowed = 2 * (_error(reference, exact) + rounding)
    assert _error(found, exact) <= allowed, f"error {_error(found, exact):.3g}, allowed {allowed:.3g}"


def assert_reference_precise(reference: Tensor, exact: Tensor, scale: float) -> None:
    """Checks that the plain code errs by a few roundings only; else `assert_as_exact` would be too loose.

    Args:
        reference: low-precision result of `kernels.reference`.
        exact: result in float64, from the same inputs.
        scale: magnitude of the largest intermediate result.
    """
    working = SUM_TERMS * torch.finfo(torch.float32).eps * scale
    rounding = torch.finfo(reference.dtype).eps * float(exact.abs().max())
    error = _error(reference, exact)
    assert error <= working + rounding, f"error {error:.3g}, expected {working + rounding:.3g}"


def widened(value: Any) -> Any:
    """Returns an op's argument in float64, lists part by part; anything but a float tensor unchanged."""
    if isinstance(value, list):
        return [widened(part) for part in value]
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).abs().max())


def tensors(result: Any) -> list[Tensor]:
    """Returns an op's results as a list, even a single one."""
    return [result] if isinstance(result, Tensor) else list(result)
