"""The Triton kernels compile for every relevant GPU, ship completely, and are not loaded elsewhere."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | variables
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_no_kernel_spills_registers() -> None:
    pytest.importorskip("triton")
    done = run("-m", "bench.registers")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "_render_backward_kernel" in done.stdout


def test_the_package_imports_without_triton_and_loads_no_kernel() -> None:
    code = """
import os, sys
sys.modules["triton"] = None
import cnnvis_fast
from cnnvis_fast.kernels import ops, triton
print(triton.why_unavailable())
os.environ["TRITON_INTERPRET"] = "1"
print(triton.why_unavailable())
assert not [name for name in sys.modules if name.startswith(triton.__name__ + ".")]
"""
    done = run("-c", code, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    device, package = done.stdout.splitlines()
    assert device == "the Triton kernels need a CUDA device, and torch sees none: use auto or reference"
    assert package.startswith("the Triton kernels need the package triton, which does not import (")


@pytest.mark.skipif(torch.cuda.is_available(), reason="would tune")
def test_tuning_says_that_it_needs_a_device() -> None:
    pytest.importorskip("triton")
    done = run("-m", "bench.tune")
    assert done.returncode == 2, done.stderr
    assert done.stderr == "Tuning needs a CUDA device, and torch sees none.\n"


def test_the_table_of_configurations_is_shipped_and_whole() -> None:
    text = importlib.resources.files("cnnvis_fast.kernels.triton").joinpath("configurations.json").read_text()
    table = json.loads(text)
    network = {"rectify", "rectify_backward", "max_pool", "max_pool_backward"}
    assert table["default"].keys() == {"render", "render_backward", "ascend_", "restrain"} | network
    for device, rows in table.items():
        for op, row in rows.items():
            assert row.keys() == table["default"][op].keys(), (device, op)
