"""What people and scripts expect of any command and any package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.config import PRESETS

QUICK = ["--filters", "0", "--steps", "2", "--size", "32"]


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


HELP = """
import sys
from cnnvis_fast.commands.main import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code
heavy = {"torch", "torchvision", "numpy", "PIL", "jinja2"} & {*sys.modules}
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["atlas", "--help"], ["--version"], ["--print-completion", "bash"]]
)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    if arguments[0] == "--print-completion":
        pytest.importorskip("shtab")
    assert python(HELP, *arguments)


NAMES = """
import sys
import cnnvis_fast as cv
import cnnvis_fast.jobs.atlas, cnnvis_fast.networks.listing, cnnvis_fast.page.build, cnnvis_fast.kernels.ops
from cnnvis_fast import atlas
assert cv.atlas is atlas and callable(cv.atlas) and callable(cv.gallery) and callable(cv.layers)
assert cv.kernels.ops is sys.modules["cnnvis_fast.kernels.ops"]
from cnnvis_fast.jobs.atlas import Atlas
assert Atlas is cv.Atlas
"""


def test_functions_keep_their_names_from_submodules() -> None:
    python(NAMES)
    python("import cnnvis_fast.jobs.atlas\n" + NAMES)
    python("from cnnvis_fast import *\nassert callable(atlas) and callable(gallery)")


def test_every_public_name_is_there() -> None:
    for name in cv.__all__:
        assert getattr(cv, name) is not None
        assert name in dir(cv)
    assert isinstance(cv.maximize, FunctionType)
    with pytest.raises(AttributeError, match="maximise"):
        _ = cv.maximise  # type: ignore[attr-defined]


def test_public_names_are_those_that_type_checkers_see() -> None:
    text = Path(str(cv.__file__)).read_text()
    block = text.split("if TYPE_CHECKING:\n")[1].split("\n\n")[0]
    imported = {name.strip() for line in block.splitlines() for name in line.split(" import ")[1].split(",")}
    assert imported | {"__version__"} == {*cv.__all__}


def test_the_version_is_told(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"cnnvis-fast {cv.__version__}\n"


def test_help_names_every_preset(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["atlas", "--help"])
    out = capsys.readouterr().out
    assert all(preset in out for preset in PRESETS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(shell: str, capsys: Any) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "patches" in out
    assert shell == "tcsh" or "--images" in out  # for tcsh, shtab knows the commands alone


def test_completion_without_shtab_is_one_sentence(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", "bash"])
    assert stop.value.code == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize("color", [None, "1"])
def test_an_atlas_for_machines(color: str | None, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if color:
        monkeypatch.setenv("NO_COLOR", color)
    assert main(["atlas", "texturenet", "--layer", "conv1", *QUICK, "--out", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no progress where stderr is no terminal
    assert "\x1b" not in out
    told = json.loads(out)
    assert told["made"] == 1
    assert sum(told["status"].values()) == 1
    assert Path(told["page"]).is_file()
    assert Path(told["sheets"]["features.0"]).is_file()
    assert told["scores"][0]["filter"] == 0


@pytest.mark.parametrize("spelling", [["--color", "gray"], ["--colour", "grey"]])
def test_both_spellings_of_color_are_one_option(spelling: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["maximize", "texturenet", "conv1", *QUICK, *spelling, "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "job.json").read_text())["config"]["colour"] == "grey"
    with pytest.raises(SystemExit):
        main(["maximize", "--help"])
    out = capsys.readouterr().out
    assert "--color" in out
    assert "--colour" not in out


def test_making_pictures_leaves_a_page(tmp_path: Path, capsys: Any) -> None:
    assert main(["maximize", "texturenet", "conv1", *QUICK, "--out", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == str(tmp_path / "index.html")
    page = (tmp_path / "index.html").read_bytes()
    (tmp_path / "index.html").unlink()
    assert main(["gallery", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").read_bytes() == page


def test_doctor_for_machines(capsys: Any) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cnnvis_fast"] == cv.__version__
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert all(value in report for value in told.values())


def test_what_is_done_can_be_logged(tmp_path: Path, capsys: Any) -> None:
    import logging

    logger = logging.getLogger("cnnvis_fast")
    before = logger.handlers[:], logger.level
    try:
        arguments = ["maximize", "texturenet", "conv1", *QUICK, "--out", str(tmp_path)]
        assert main(["--verbose", *arguments]) == 0
        err = capsys.readouterr().err
    finally:
        logger.handlers[:], logger.level = before
    assert "features.0: 1 of 1 pictures to make" in err
    assert "index.html" in err


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["gallery"], "DIR"),
        (["gallery", "EMPTY"], "job.json"),
        (["gallery", "EMPTY", "--weights", "none"], "--photo"),
        (["patches", "texturenet", "--out", "OUT"], "--images"),
        (["patches", "texturenet", "--images", "EMPTY", "--out", "OUT"], "no photos"),
        (["patches", "texturenet", "--images", "MISSING", "--out", "OUT"], "no folder"),
        (["patches", "texturenet", "--images", "EMPTY", "--out", "OUT", "--shard", "3"], "0/4"),
        (["patches", "texturenet", "--images", "EMPTY", "--out", "OUT", "--k", "0"], "`k`"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    arguments: list[str], word: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "EMPTY").mkdir()
    capital = {"EMPTY", "OUT", "MISSING"}
    filled = [str(tmp_path / part) if part in capital else part for part in arguments]
    try:
        code = main(filled)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert word in err
    assert [path.name for path in tmp_path.rglob("*")] == ["EMPTY"]
