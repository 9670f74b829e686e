"""Keeps glibc from returning the loop's large buffers to the system at every step.

By default each allocation above 32 MiB, and often a smaller one, is mapped, zeroed page by page and unmapped
again, which takes a quarter to a third of a bfloat16 step on two cores (bench/NOTES.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # from malloc.h
# Once set, a threshold no longer adapts to the program, so these are the values where adapting would end.
_AFTER = {_TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024, _MMAP_THRESHOLD: 32 * 2**20, _MMAP_MAX: 65536}


@contextlib.contextmanager
def kept_buffers() -> Iterator[bool]:
    """Keeps freed memory in the process while open; yields whether the C library allows it.

    On exit all free memory is returned to the system. From then on the `MALLOC_...` environment variables are
    overridden, and the thresholds stay at 64 MiB (trim) and 32 MiB (mmap).
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield False
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TOP_PAD, 256 * 2**20)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield True
    finally:
        for parameter, value in _AFTER.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
