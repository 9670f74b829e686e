"""Forward hooks that are always removed, and forward passes that a hook ends early."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn


class StopForward(BaseException):
    """Ends a forward pass from inside a hook; not an Exception, so that no network's code catches it."""


@contextlib.contextmanager
def hooked(
    modules: Mapping[str, nn.Module], see: Callable[[str, nn.Module, Any], None], before: bool = False
) -> Iterator[None]:
    """Calls a function whenever one of some modules runs; removes all hooks at the end.

    Args:
        modules: the modules by name.
        see: takes a module's name, the module and its output, or its inputs as a tuple if `before`. It must
            copy an output that it keeps: an in-place activation may overwrite it.
        before: whether to call it before each module runs instead of after.
    """
    handles = []
    try:
        for name, module in modules.items():
            if before:
                hook = module.register_forward_pre_hook(lambda m, x, name=name: see(name, m, x))
            else:
                hook = module.register_forward_hook(lambda m, _x, y, name=name: see(name, m, y))
            handles.append(hook)
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_until_stopped(run: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function returns, or None once a hook raises `StopForward`."""
    try:
        return run(*arguments)
    except StopForward:
        return None
