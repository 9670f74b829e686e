"""Writes files completely or not at all, under names that stay in their folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..errors import CannotWrite, InputError

_BLOCK = 4096  # what a file system rounds a file's size up to
_TEMPORARY = re.compile(r"\.[\w.-]+\.\d+\.tmp")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a partial file never appears under its name.

    The temporary file is in the same folder, because renaming is atomic only within one file system. It is
    always a new file, so that a link planted under its name is not followed.

    Raises:
        OSError: the file cannot be written; its previous content is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a text file, after ending a line that was cut off.

    Raises:
        OSError: the file cannot be written, or is a link.
    """
    with open(path, "ab+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(f"{line}\n".encode())


def read_limited(path: Path, limit: int) -> bytes:
    """Returns the last `limit` bytes of a file, or all of them if there are fewer."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - limit))
        return file.read(limit)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed writers from a folder and its subfolders."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def check_room(out: Path, needed: int, files: int, what: str) -> None:
    """Checks that the disk has room for some files.

    Args:
        out: the folder; it need not exist yet.
        needed: bytes of content.
        files: number of files.
        what: subject of the error message, such as "64 pictures".

    Raises:
        InputError: the disk has less room.
    """
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free, table = shutil.disk_usage(place).free, os.statvfs(place)
    except OSError:
        return  # then writing will show whether there is room
    needed += files * _BLOCK
    if needed > free:
        raise InputError(
            f"{what} need up to {_megabytes(needed)} in {out}, and {_megabytes(free)} are free: make room, "
            "ask for fewer filters, or pass another folder as out"
        )
    if table.f_files and table.f_favail < files:
        raise InputError(
            f"{what} need {files} files in {out}, and its disk has room for {table.f_favail} more: make room "
            "or pass another folder as out"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def plain_name(layer: str) -> str:
    """Returns a layer's name as a file name: unchanged if possible, else respelled with a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", layer).lstrip(".")[:100]
    if plain != layer:
        plain += "-" + hashlib.sha256(layer.encode(errors="surrogatepass")).hexdigest()[:8]
    return plain


def png(image: Image.Image) -> bytes:
    """Returns an image as the bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@contextlib.contextmanager
def told(out: Path, what: str = "folder") -> Iterator[None]:
    """Turns an error of writing to a folder, or a file, into one sentence.

    Raises:
        CannotWrite: the body raised an OSError, or `out` is not a path.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write to {out} ({error.strerror}): make room or pass another {what} as out"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise CannotWrite(f"{str(out)!r} is not a path ({error}): pass another {what} as out") from error
