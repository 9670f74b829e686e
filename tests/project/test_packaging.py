"""The package installs whole: with the extension where it can be built, and usable where it cannot."""

import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from cnnvis_fast.kernels import cpu

ROOT = Path(__file__).parents[2]


def can_compile() -> bool:
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    compilers = filter(shutil.which, [os.environ.get("CXX", ""), "c++", "g++", "clang++"])
    # Asked for its version, because a compiler may be a stub that only tells how to get one.
    return has_headers and any(subprocess.run([name, "--version"]).returncode == 0 for name in compilers)


def test_the_extension_works_or_gives_its_reason() -> None:
    if cpu.why_unavailable() is None:
        info = cpu.build_info()
        assert info["compiler"]
        assert info["cxx_standard"] >= 201703
        assert info["levels"] == cpu.levels()
        assert cpu.levels()[-1] == "baseline"
    else:
        assert cpu.levels() == []
        with pytest.raises(RuntimeError, match="CPU kernels"):
            cpu.build_info()


def test_the_extension_is_there_where_it_can_be_built() -> None:
    # A build failure quietly gives a pure Python package, so an error in the C++ shows only here.
    if not can_compile():
        pytest.skip("needs a C++ compiler and the Python headers")
    assert not cpu.why_unavailable(), (
        f"{cpu.why_unavailable()} (`pip install -v -e .` shows the compiler's errors.)"
    )


def test_the_kernels_import_without_the_extension() -> None:
    code = """
import sys
sys.modules["cnnvis_fast.kernels.cpu._cpu"] = None
from cnnvis_fast.kernels import cpu
assert cpu.levels() == []
print(cpu.why_unavailable())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "C++ compiler" in done.stdout


def test_the_kernels_build_for_arm() -> None:
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler for aarch64")
    command = [
        compiler,
        "-std=c++17",
        "-fopenmp",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-psabi",
    ]
    source = ROOT / "kernels" / "cpu" / "native" / "instruction_set.cpp"
    done = subprocess.run([*command, "-DCNNVIS_FAST_LEVEL=baseline", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_works_on_its_own(tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        done = subprocess.run([*command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".cpp", ".h"))]
    assert any(Path(name).name.startswith("_cpu.") for name in names) == can_compile()
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    # Dependencies are lent by this environment, through a path that leaves its editable install behind.
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", wheel)
    assert str(tmp_path) in run(python, "-c", "import cnnvis_fast; print(cnnvis_fast.__file__)")
    assert (
        run(python, "-c", "from cnnvis_fast.kernels import cpu; print(cpu.levels())") == f"{cpu.levels()}\n"
    )
    run(
        python,
        "-m",
        "cnnvis_fast",
        "atlas",
        "--filters",
        "0,1",
        "--steps",
        "4",
        "--size",
        "32",
        "--out",
        "atlas",
    )
    assert len(list((tmp_path / "atlas").rglob("000[01].png"))) == 2
    assert (tmp_path / "atlas" / "index.html").is_file()  # the page's templates are in the wheel


def test_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("cnnvis_fast") == project["version"]


def test_type_information_is_shipped() -> None:
    assert importlib.resources.files("cnnvis_fast").joinpath("py.typed").is_file()
