"""Allows one writer per folder.

The lock is `flock` on `OUT/.lock`. The system releases it when its holder ends, however it ends, so a killed
job leaves a file but no lock, and the next writer reuses the file. A regular end removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Locks a folder against other writers while open.

    Raises:
        InputError: another process holds the lock.
        OSError: the folder cannot be written.
    """
    path = folder / ".lock"
    descriptor = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # if the folder is gone, there is nothing to unlock
            path.unlink()  # before unlocking: afterwards another process may have locked it
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            _flock(descriptor, path)
            # The previous holder may have removed the file between our opening and our locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{platform.node()} {os.getpid()}".encode(), 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        _warn(path)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = re.fullmatch(rb"([\w.-]{1,100}) (\d{1,10})", os.pread(descriptor, 200, 0))
        who = f"process {holder[2].decode()} on {holder[1].decode()}" if holder else "another process"
        raise InputError(
            f"{who} is writing to {path.parent}: wait until it is done, or pass another folder as out"
        ) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _warn(path)


def _warn(path: Path) -> None:
    warnings.warn(
        f"the file system of {path.parent} has no locks: do not start a second job in this folder",
        stacklevel=6,
    )
