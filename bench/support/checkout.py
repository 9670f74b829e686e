"""Runs the package from a source checkout if it is not installed."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_importable() -> dict[str, str]:
    """Makes `cnnvis_fast` importable here; returns an environment in which other processes find it, too.

    If the package is installed, nothing changes. Otherwise a folder of links replaces an installation: the
    package, `kernels` in its place inside it, and the metadata with the version. Nothing is compiled, so on
    CPUs plain PyTorch does the kernels' work.
    """
    try:
        importlib.metadata.version("cnnvis_fast")
    except importlib.metadata.PackageNotFoundError:
        return _linked(Path(tempfile.mkdtemp(prefix="cnnvis_fast-checkout-")))
    return dict(os.environ)


def _linked(folder: Path) -> dict[str, str]:
    package = folder / "cnnvis_fast"
    package.mkdir()
    for entry in (ROOT / "cnnvis_fast").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    (package / "kernels").symlink_to(ROOT / "kernels")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    metadata = folder / f"cnnvis_fast-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: cnnvis_fast\nVersion: {version}\n")
    sys.path.insert(0, str(folder))
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *([known] if known else [])])}
