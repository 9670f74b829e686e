"""The compiled extension: whether it is there, and what it and this CPU can do.

It is optional: an installation made without a C++ compiler lacks it, so callers ask `levels` before they run
a kernel of it.
"""

from __future__ import annotations

from typing import Any

_MISSING = (
    "the compiled CPU kernels are missing because cnnvis_fast was installed without a working "
    "C++ compiler: install one and reinstall cnnvis_fast"
)

_reason: str | None = None
compiled: Any = None
"""The extension itself; None where it is missing."""
try:
    from . import _cpu  # type: ignore[attr-defined]  # exists only once compiled

    compiled = _cpu
except ModuleNotFoundError:
    _reason = _MISSING
except ImportError as error:
    # A file that exists but does not load (say, without its OpenMP library) needs another remedy.
    is_there = error.name == f"{__package__}._cpu"
    _reason = f"the compiled CPU kernels do not load: {error}" if is_there else _MISSING

_LEVELS: tuple[str, ...] = (
    () if _reason is not None else tuple(compiled.levels())
)  # asked for at every call of an op


def why_unavailable() -> str | None:
    """Returns the reason why the compiled kernels cannot be used, or None if they can."""
    return _reason


def levels() -> list[str]:
    """Returns the instruction sets that this CPU can run, the widest first; none without the extension.

    Each has its own set of kernels: "avx512", "avx2", and "baseline", which every CPU runs.
    """
    return list(_LEVELS)


def multiplies_bfloat16(level: str) -> bool:
    """Returns whether an instruction set's kernels multiply bfloat16 as fast as this CPU can.

    They do where they need not convert it first and the CPU has no matrix units, which only libraries use.
    """
    return level == "avx512" and level in _LEVELS and bool(compiled.multiplies_bfloat16())


def build_info() -> dict[str, object]:
    """Describes the compiled extension and the CPU it runs on.

    Returns:
        ``compiler`` (name and version), ``cxx_standard`` (the value of ``__cplusplus``), ``levels`` (the
        instruction sets that this CPU can run), and ``openmp`` (file of the library whose threads it uses;
        empty without threads).

    Raises:
        RuntimeError: the extension is not available; the message gives the reason.
    """
    if _reason is not None:
        raise RuntimeError(_reason)
    info: dict[str, object] = compiled.build_info()
    return info


MOST_CHANNELS: int = 0 if _reason is not None else compiled.MOST_CHANNELS
"""The most channels of a picture that these kernels take."""
