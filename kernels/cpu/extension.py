"""The compiled extension: whether it is there, and what it and this CPU can do.

It is optional: an installation made without a C++ compiler lacks it, and callers ask :func:`levels` before
they take this road.
"""

from __future__ import annotations

from typing import Any

_MISSING = (
    "the compiled CPU kernels are missing because cnnvis_fast was installed without a working "
    "C++ compiler: install one and reinstall cnnvis_fast"
)

_reason: str | None = None
compiled: Any = None
"""The extension itself; None where it is not there."""
try:
    from . import _cpu  # type: ignore[attr-defined]  # exists only once compiled

    compiled = _cpu
except ModuleNotFoundError:
    _reason = _MISSING
except ImportError as error:
    # A file that is there but does not load (say, without its OpenMP library) needs another cure.
    is_there = error.name == f"{__package__}._cpu"
    _reason = f"the compiled CPU kernels do not load: {error}" if is_there else _MISSING

_LEVELS: tuple[str, ...] = (
    () if _reason is not None else tuple(compiled.levels())
)  # asked for at every call of an op


def why_unavailable() -> str | None:
    """Give the reason why the compiled kernels cannot be used, or None if they can."""
    return _reason


def levels() -> list[str]:
    """Name the instruction sets that this CPU can run, the widest first; none without the extension.

    Each is a set of kernels of its own: "avx512", "avx2", and "baseline", which every CPU runs.
    """
    return list(_LEVELS)


def multiplies_bfloat16(level: str) -> bool:
    """Tell whether an instruction set's kernels multiply bfloat16 as fast as this CPU can.

    That is, without converting it first, and where there are no matrix units, which only libraries use.
    """
    return level == "avx512" and level in _LEVELS and bool(compiled.multiplies_bfloat16())


def build_info() -> dict[str, object]:
    """Describe the compiled extension and the CPU it runs on.

    Returns:
        ``compiler`` (name and version), ``cxx_standard`` (the value of ``__cplusplus``), ``levels`` (see
        :func:`levels`), and ``openmp`` (file of the library whose threads it uses; empty without threads).

    Raises:
        RuntimeError: If the extension is not available; the message gives the reason.
    """
    if _reason is not None:
        raise RuntimeError(_reason)
    info: dict[str, object] = compiled.build_info()
    return info


MOST_CHANNELS: int = 0 if _reason is not None else compiled.MOST_CHANNELS
"""Pictures of more channels are not for these kernels."""
