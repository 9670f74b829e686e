"""The network runs as a program or, where that does not work, under autograd."""

import pytest
import torch
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.ascent import execution
from cnnvis_fast.ascent.plan import Plan, make_plan
from cnnvis_fast.config import configure


class Masked(nn.Module):
    """Has arguments with defaults besides the picture, as attention has its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        return self.conv(x) * scale


def planned(**options: object) -> Plan:
    torch.manual_seed(0)
    return make_plan(Masked().eval(), "conv", configure(size=32, steps=2, **options))


def test_programs_run_by_default_where_kernels_are_compiled() -> None:
    assert planned().program is not None
    assert planned().config.program is True
    assert planned(kernels="reference").program is None
    assert planned(compile=True).program is None
    assert planned(program=False).config.program is False


def test_defaults_of_other_arguments_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Masked(), nn.ReLU()).eval()
    x = torch.randn(1, 3, 16, 16)
    program = execution.make_program(torch.fx.symbolic_trace(Masked().eval()), x)
    assert program(x)[0].shape == (1, 4, 14, 14)
    images = [
        cv.maximize(network, "1", [0], size=32, steps=3, dtype="float32", program=way)
        for way in (True, False)
    ]
    assert (images[0].images - images[1].images).abs().max() < 0.05


def test_a_program_that_fails_is_told_and_autograd_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such step")

    monkeypatch.setattr(execution, "make_program", fail)
    with pytest.warns(UserWarning, match=r"does not run as a program \(no such step\): using autograd"):
        plan = planned()
    assert (plan.program, plan.config.program) == (None, False)
    with pytest.raises(RuntimeError, match="no such step"):
        planned(program=True)


def test_float32_again_is_a_program_again() -> None:
    plan = planned(dtype="bfloat16")
    again = plan.in_float32()
    assert again.config.dtype == "float32"
    x = torch.randn(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    assert again.program is not None
    torch.testing.assert_close(again.program(x)[0], plan.trunk.module(x))
