"""The package installs whole: with the extension where it can be built, and usable where it cannot."""

import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from cnnvis_fast.kernels import cpu

ROOT = Path(__file__).parents[1]


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


def test_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("cnnvis_fast") == project["version"]


def test_type_information_is_shipped() -> None:
    assert importlib.resources.files("cnnvis_fast").joinpath("py.typed").is_file()
