"""The order of the rooms, written down once: imports run downwards only, and no backend imports another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the top floor down. A room may import those below it; rooms on one floor know nothing of each other.
FLOORS = (
    ("__main__",),
    ("commands",),
    ("compat", "jobs", "page"),
    ("results",),
    ("inspection",),
    ("ascent",),
    ("objectives", "parameterizations"),
    ("storage",),
    ("networks",),
    ("images", "program"),
    ("texturenet", "config"),
    ("progress", "randomness"),
    ("errors",),
    ("kernels",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BACKENDS = ("cpu", "reference", "triton")
# What an op's file may import: what backends share, and the choice of one, but no backend.
SHARED = ("backends", "geometry", "layouts", "second_moment")


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every module of the project that a file imports, wherever in the file, as its path of names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = [*base, *(node.module or "").split(".")] if node.module else [*base]
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        yield from (tuple(name) for name in names if name[0] == "cnnvis_fast")


def upward(folder: Path) -> list[str]:
    """A sentence for each import of the package in `folder` that does not run downwards."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts == ("__init__",):
            continue  # the package's own names, imported on first use
        for name in imports(path, ("cnnvis_fast", *parts[:-1])):
            room, other = parts[0], name[1]
            if other != room and other in FLOOR and FLOOR[other] <= FLOOR[room]:
                found.append(
                    f"`{room}` must not import `{other}`, which is not below it: "
                    f"{path.relative_to(folder)} imports {'.'.join(name)}"
                )
    return found


def strays(folder: Path) -> list[str]:
    """A sentence for each import in `kernels` that leaves it, or that takes one backend to another."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        for name in imports(path, ("cnnvis_fast", "kernels", *parts[:-1])):
            where = f"{path.relative_to(folder)} imports {'.'.join(name)}"
            room, other = parts[0], name[2] if name[1] == "kernels" else name[1]
            if name[1] != "kernels":
                found.append(f"`kernels` must import nothing of the package, least of all `{other}`: {where}")
            elif room in BACKENDS and other not in (room, "geometry", "layouts", "second_moment"):
                found.append(f"the backend `{room}` must not import `{other}`: {where}")
            elif room == "ops" and other not in ("ops", *SHARED):
                found.append(f"`ops` must not import `{other}`, which `backends` chooses: {where}")
    return found


def test_every_room_has_its_floor() -> None:
    entries = (ROOT / "cnnvis_fast").iterdir()
    rooms = {entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()}
    assert rooms - {"__init__"} == FLOOR.keys() - {"kernels"}


def test_few_modules_lie_outside_of_the_rooms() -> None:
    assert len(list((ROOT / "cnnvis_fast").glob("*.py"))) <= 7


def test_every_room_says_what_it_knows_and_may_import() -> None:
    for path in (ROOT / "cnnvis_fast").rglob("__init__.py"):
        assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 60, path


def test_imports_run_downwards() -> None:
    assert upward(ROOT / "cnnvis_fast") == []


def test_kernels_keep_to_themselves() -> None:
    assert strays(ROOT / "kernels") == []


@pytest.mark.parametrize(
    ("path", "line", "rooms"),
    [
        ("networks/trunk.py", "from ..ascent.plan import Plan", ("networks", "ascent")),
        ("images/photos.py", "from cnnvis_fast import jobs", ("images", "jobs")),
        ("page/build.py", "def f():\n    from ..jobs import atlas", ("page", "jobs")),
        ("errors.py", "import cnnvis_fast.config", ("errors", "config")),
        ("program/rules/table.py", "from ...networks import trunk", ("program", "networks")),
    ],
)
def test_an_import_that_runs_upwards_names_both_rooms(
    path: str, line: str, rooms: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(line)
    (sentence,) = upward(tmp_path)
    assert all(f"`{room}`" in sentence for room in rooms)


@pytest.mark.parametrize(
    ("path", "line", "words"),
    [
        ("ops/render.py", "from ..reference import render", ("`ops`", "`reference`")),
        ("cpu/render.py", "from ..triton import render", ("`cpu`", "`triton`")),
        ("geometry.py", "from ..config import Config", ("`kernels`", "`config`")),
    ],
)
def test_a_stray_import_of_a_kernel_is_named(
    path: str, line: str, words: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(line)
    (sentence,) = strays(tmp_path)
    assert all(word in sentence for word in words)
