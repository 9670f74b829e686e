"""The check against ONNX sees what is wrong."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import pytest
import torch
from support.networks import SIZE
from support.onnx_checks import CONVOLUTIONS, WAYS, names, network
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.inspection.onnx import check
from cnnvis_fast.inspection.onnx.report import difference
from cnnvis_fast.kernels import ops as kernels
from cnnvis_fast.networks import trunk

pytestmark = pytest.mark.usefixtures("one_thread", "same_random_networks")


@pytest.fixture
def broken_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias of every trunk's `layer1.0.conv1`, into which `bn1` is folded, is a hundredth too large."""
    plain = trunk.cut

    def cut(model: nn.Module, layer: str, example: Tensor) -> trunk.Trunk:
        result = plain(model, layer, example)
        for name, module in result.module.named_modules():
            if name == "layer1.0.conv1" and module.bias is not None:
                module.bias *= 1.01
        return result

    monkeypatch.setattr(trunk, "cut", cut)


@pytest.mark.usefixtures("broken_fold")
def test_a_fold_whose_bias_is_a_hundredth_off_is_seen_where_it_first_acts() -> None:
    layers = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer4.1.conv2", "logits"]
    report = cv.check_onnx(network("resnet18"), layers, size=SIZE)
    bad = {(row.layer, row.compared) for row in report.differences if not row.ok}
    assert {layer for layer, _ in bad} == {*layers[2:]}
    assert {(layer, "trunk float32") for layer in layers[2:]} <= bad
    assert not [way for _, way in bad if way == "eager float32"]
    assert report.first_bad is not None
    assert report.first_bad.layer == "layer1.0.conv2"
    assert report.as_dict()["first_bad"] == "layer1.0.conv2"
    assert "3 of 5 layers of ResNet differ; in the first, layer1.0.conv2, trunk float32" in report.summary()


def test_a_wrong_fold_is_seen_by_the_cut_or_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    fuse = trunk.fuse_conv_bn_eval

    def scaled(convolution: Any, norm: Any) -> Any:
        folded = fuse(convolution, norm)
        folded.bias *= 1.01
        return folded

    monkeypatch.setattr(trunk, "fuse_conv_bn_eval", scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cut that differs by a thousandth is not used, and says so
        report = cv.check_onnx("texturenet", size=48)
    assert names(report) == CONVOLUTIONS
    for row in report.differences:
        if row.compared == "trunk float32":
            assert row.ok == (row.layer == CONVOLUTIONS[0]), row


def test_a_bfloat16_trunk_that_is_off_by_more_than_rounding_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trunk.to_device

    def to_device(cut: trunk.Trunk, dtype: torch.dtype, device: torch.device) -> nn.Module:
        module = plain(cut, dtype, device)
        if dtype == torch.bfloat16:
            next(module.parameters()).mul_(1.05)
        return module

    monkeypatch.setattr(trunk, "to_device", to_device)
    report = cv.check_onnx("texturenet", "conv3", size=48)
    assert [row.ok for row in report.differences] == [True, True, True, False, False]
    assert report.first_bad is not None
    assert report.first_bad.compared == "trunk bfloat16"


def test_a_program_whose_pooling_is_off_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = kernels.max_pool
    monkeypatch.setattr(kernels, "max_pool", lambda x, **options: plain(1.05 * x, **options))
    report = cv.check_onnx("texturenet", "conv3", size=48)
    assert [row.compared for row in report.differences if not row.ok] == [
        "program float32",
        "program bfloat16",
    ]


def test_a_program_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such step")

    monkeypatch.setattr(check, "make_program", fail)
    with pytest.warns(UserWarning, match="features.8 does not run as a program \\(no such step\\)"):
        report = cv.check_onnx("texturenet", "conv3", size=48)
    assert [row.compared for row in report.differences] == [*WAYS[:2], WAYS[3]]


def test_numbers_of_a_difference() -> None:
    expected = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    row = difference("a", "b", expected + torch.tensor([[0.0, 0.5], [0.5, 0.0]]), expected, 0.125)
    assert row.shape == (2,)
    assert (row.max_absolute, row.mean_absolute) == (0.5, 0.25)
    assert (row.max_relative, row.mean_relative) == (0.125, 0.125)
    assert row.cosine == pytest.approx(24 / math.sqrt(26 * 22.5))
    assert row.ok
    assert not difference("a", "b", expected + 0.6, expected, 0.125).ok


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_differs(value: float) -> None:
    for found, expected in ((value, 1.0), (1.0, value), (value, value)):
        row = difference("a", "b", torch.full((1, 2), found), torch.full((1, 2), expected), 1e9)
        assert not row.ok
        report = cv.OnnxReport("m", "none", "0", 8, [row])
        assert "BAD" in str(report)
        json.dumps(report.as_dict(), allow_nan=False)


def test_zeros_agree_with_zeros_alone() -> None:
    zeros = torch.zeros(1, 2)
    assert difference("a", "b", zeros, zeros, 1e-4).ok
    assert not difference("a", "b", zeros + 1e-30, zeros, 1e-4).ok


def test_another_shape_differs() -> None:
    assert not difference("a", "b", torch.ones(1, 1), torch.ones(1, 2), 1e9).ok
