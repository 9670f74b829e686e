"""Assembles the parser and runs a command.

Exit codes: 0 done, 1 a check failed or the reader of the output closed it, 2 a wrong argument or no disk
space, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).

A command imports what takes long to import (torch) when it runs, so that help and completion are quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ..errors import InputError
from . import doctor, inspect, pages, pictures

# Every command, in the order of the help. Each adds its parser, with a default `run`: options -> exit code.
_COMMANDS = (
    inspect.add_layers,
    pictures.add_maximize,
    pictures.add_atlas,
    inspect.add_measure,
    inspect.add_filters,
    inspect.add_activations,
    inspect.add_onnx,
    pictures.add_reproduce_original,
    pages.add_gallery,
    pages.add_patches,
    doctor.add_doctor,
)


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived; it is handled like Ctrl-C."""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong argument with one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_sentence(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cnnvis-fast", description="See what the filters of a convolutional network look for."
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    parser.add_argument("--verbose", action="store_true", help="log each action to stderr")
    _add_completion(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser


def _add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--print-completion SHELL`, which shtab implements."""
    try:
        import shtab
    except ImportError:
        parser.add_argument(
            "--print-completion", action=_NoCompletion, help="not available: needs the extra completion"
        )
    else:
        shtab.add_argument_to(parser, ["--print-completion"], help="print a shell completion script")


class _NoCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("shell completion needs shtab: pip install 'cnnvis_fast[completion]'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(command=None)
    try:
        _parser().parse_args(arguments, options)
        warnings.showwarning = _show_warning
        _configure_logging(options.verbose)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # file names may hold bytes that are not text
                stream.reconfigure(errors="backslashreplace")
        with _sigterm_interrupts():
            code: int = options.run(options)
        sys.stdout.flush()  # here, so that a closed pipe is noticed here
        return code
    except InputError as error:
        print(f"cnnvis-fast: {_sentence(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output is gone; without this the interpreter would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interruption:
        terminated = isinstance(interruption, _Terminated)
        resumable = options.command in ("maximize", "atlas")
        command = shlex.join(["cnnvis-fast", *map(str, arguments)])
        hint = f"; finished tiles are kept, resume with: {command}" if resumable else ""
        print(f"cnnvis-fast: {'terminated' if terminated else 'interrupted'}{hint}", file=sys.stderr)
        return 143 if terminated else 130


class _Version(argparse.Action):
    """Reads the version only when it is asked for, so that help does not wait for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"cnnvis-fast {__version__}")
        parser.exit()


def _configure_logging(verbose: bool) -> None:
    """Sends the package's log to stderr if `verbose`; silences what other packages log."""
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger = logging.getLogger("cnnvis_fast")
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
    logging.getLogger("torch").setLevel(logging.ERROR)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # our own errors say which files it cannot read


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM raise an exception while open, as Ctrl-C does, so that work ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def terminate(*_: Any) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"cnnvis-fast: note: {_sentence(message)}", file=sys.stderr)


def _sentence(message: object) -> str:
    """Returns a message on one line, of bounded length, with unprintable characters of names escaped."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(message))
    return text if len(text) <= 800 else f"{text[:500]} ... {text[-250:]}"
