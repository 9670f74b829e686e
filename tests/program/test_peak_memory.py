"""A program takes the memory that it predicts, and less than autograd takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnvis_fast as cv
from cnnvis_fast.ascent.batch_size import batch_rule
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.networks.memory import bytes_of_program
from cnnvis_fast.program import make_program
from cnnvis_fast.program.peak_memory import peak_bytes

MEASURED = """
import sys
import torch
from support.networks import random_network
from cnnvis_fast.networks import trunk
from cnnvis_fast.program import make_program

name, layer = sys.argv[1:]
model = random_network(name, torch.Generator().manual_seed(0))
x = torch.randn(5, 3, 224, 224).contiguous(memory_format=torch.channels_last)
module = trunk.to_device(trunk.cut(model, layer, x[:1]), torch.float32, x.device)
program = make_program(module, x[:1])

def peak(work, batch):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    output, back = work(x[:batch])
    back(torch.zeros_like(output))
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

def per_picture(work):
    peak(work, 5)  # what is made once is made
    return (peak(work, 5) - peak(work, 1)) / 4

picture = x[:1].numel() * 4
with torch.no_grad():
    print(program.bytes_per_picture(x[:1]) - picture, per_picture(program))
    print(per_picture(lambda x: torch.func.vjp(module, x.clone())))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("name", "layer"), [("squeezenet1_0", "features.12.expand3x3"), ("resnet18", "layer3")]
)
def test_the_predicted_peak_is_the_measured_one_and_half_of_autograds(name: str, layer: str) -> None:
    environment = {
        "PATH": "",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        # Freed memory goes back to the system at once.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
    }
    command = [sys.executable, "-c", MEASURED, name, layer]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    predicted, measured, autograd = map(float, done.stdout.split())
    assert predicted == pytest.approx(measured, rel=0.2)
    assert measured <= autograd / 2


def test_a_peak_counts_what_lives_at_once() -> None:
    def work() -> None:
        x = torch.zeros(1000)
        y = x + 1
        del x
        (y + 1).view(10, 100).add_(1)

    assert peak_bytes(work) == 8000


def test_the_batch_follows_the_programs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    device, options = torch.device("cpu"), {"size": 48, "steps": 1, "program": True}
    assert [batch_rule(device, count) for count in (1, 2**29, 2**29 + 1, 2**30 + 1, 2**40)] == [4, 4, 2, 1, 1]
    plan = make_plan(cv.load_model("texturenet"), "conv5", configure(**options))
    assert plan.program is not None
    count = bytes_of_program(plan.program, plan.example.to(plan.dtype), 48)
    monkeypatch.setattr("cnnvis_fast.ascent.batch_size._CPU_BYTES", 3 * count)
    assert make_plan(cv.load_model("texturenet"), "conv5", configure(**options)).batch == 2


def test_pictures_take_memory_in_proportion() -> None:
    network: Any = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1))
    network.eval().requires_grad_(False)
    found = []
    for size in (34, 66):
        x = torch.randn(1, 3, size, size)
        found.append(make_program(network, x).bytes_per_picture(x))
    assert 3.3 < found[1] / found[0] < 4.2
