"""Kernels compiled from C++, for the CPU.

The extension is optional: an installation made without a C++ compiler lacks it, and callers ask
:func:`available` before they take this road.
"""

_MISSING = (
    "The compiled CPU kernels are missing because cnnvis_fast was installed without a working "
    "C++ compiler; install one and reinstall cnnvis_fast."
)

_reason: str | None = None
try:
    from . import _cpu  # type: ignore[attr-defined]  # exists only once compiled
except ModuleNotFoundError:
    _reason = _MISSING
except ImportError as error:
    # A file that is there but does not load (say, without its OpenMP library) needs another cure.
    is_there = error.name == f"{__name__}._cpu"
    _reason = f"The compiled CPU kernels do not load: {error}" if is_there else _MISSING


def available() -> bool:
    """Tell whether the compiled kernels can be used."""
    return _reason is None


def why_unavailable() -> str | None:
    """Give the reason why the compiled kernels cannot be used, or None if they can."""
    return _reason


def build_info() -> dict[str, object]:
    """Describe the compiled extension and the CPU it runs on.

    Returns:
        ``compiler`` (name and version), ``cxx_standard`` (the value of ``__cplusplus``), ``openmp``
        (whether it was built in), ``max_threads``, and ``cpu_features`` (the vector extensions that
        this CPU has, of those that kernels may choose between).

    Raises:
        RuntimeError: If the extension is not available; the message gives the reason.
    """
    if _reason is not None:
        raise RuntimeError(_reason)
    info: dict[str, object] = _cpu.build_info()
    return info
