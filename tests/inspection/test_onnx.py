"""The check against ONNX passes where it must, on networks of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
from support.networks import NETWORKS, SIZE, outputs_at
from support.onnx_checks import CONVOLUTIONS, WAYS, Small, contents, names, network
from torch import Tensor, nn

import cnnvis_fast as cv

pytestmark = pytest.mark.usefixtures("one_thread", "same_random_networks")


def branch_on_shape(x: Tensor) -> Tensor:
    return 2 * x if x.shape[2] > 1 else x


def test_every_convolution_of_texturenet(tmp_path: Path) -> None:
    path, json_path = tmp_path / "t.onnx", tmp_path / "t.json"
    report = cv.check_onnx("texturenet", path=path, json_path=json_path, size=48)
    assert report.ok
    assert report.first_bad is None
    assert [(row.layer, row.compared) for row in report.differences] == [
        (layer, way) for layer in CONVOLUTIONS for way in WAYS
    ]
    assert report.differences[0].shape == (24, 48, 48)
    assert {*contents(tmp_path)} == {"t.onnx", "t.json"}
    stored = json.loads(json_path.read_text())
    assert stored == json.loads(json.dumps(report.as_dict()))
    assert (stored["ok"], stored["first_bad"], stored["model"], stored["size"]) == (
        True,
        None,
        "texturenet",
        48,
    )
    lines = str(report).splitlines()
    assert len(lines) == 26
    assert all(line.endswith("ok") for line in lines[1:])
    assert report.summary().startswith("5 of 5 layers of texturenet agree")


@pytest.mark.parametrize("batch", [1, 5])
def test_the_file_yields_the_layers_by_name_for_any_number_of_pictures(tmp_path: Path, batch: int) -> None:
    model = cv.load_model("texturenet")
    cv.check_onnx(model, ["logits", "conv1", "features.0", "conv3"], tmp_path / "t.onnx", size=32)
    session = onnxruntime.InferenceSession(tmp_path / "t.onnx", providers=["CPUExecutionProvider"])
    layers = ["features.0", "features.8", "logits"]
    assert [output.name for output in session.get_outputs()] == layers
    assert [node.name for node in session.get_inputs()] == ["pictures"]
    x = torch.randn(batch, 3, 32, 32)
    found = session.run(None, {"pictures": x.numpy()})
    for output, expected in zip(found, outputs_at(layers, model, x).values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-4, atol=1e-5)


def test_the_file_is_a_function_of_the_network(tmp_path: Path) -> None:
    for name in ("a", "b"):
        cv.check_onnx("texturenet", "conv2", tmp_path / name, size=32)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b".py" not in content  # where this machine keeps its code is nobody's business


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["conv1", "layer1.0.conv2", "layer2.0.downsample.0", "logits"]),
        ("squeezenet1_0", ["conv1", "features.3.squeeze", "features.12.expand3x3", "logits"]),
    ],
)
def test_some_layers_of_a_network(name: str, layers: list[str]) -> None:
    model = network(name)
    before = {key: value.clone() for key, value in model.train().state_dict().items()}
    report = cv.check_onnx(model, layers, size=SIZE)
    assert report.ok, str(report)
    assert len(names(report)) == len(layers)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_and_the_logits_of_a_network(name: str) -> None:
    model = network(name)
    convolutions = [layer.name for layer in cv.layers(model, size=SIZE) if layer.alias]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = cv.check_onnx(model, [*convolutions, "logits"], size=SIZE)
    assert report.ok, report.summary()
    assert names(report) == [*convolutions, "logits"]
    assert {row.compared for row in report.differences} == {*WAYS}


@pytest.mark.slow
def test_vgg16_at_full_size_takes_little_memory() -> None:
    # `ru_maxrss` of a started process begins with the peak of the one that started it, the tests' own.
    code = """
import cnnvis_fast as cv
report = cv.check_onnx("vgg16", weights="none")
assert report.ok and len(report.differences) == 65, str(report)
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) / 2**20 for line in file if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8  # GB


def test_layers_whose_outputs_are_one_tensor() -> None:
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Identity())
    report = cv.check_onnx(model, ["3", "logits", "0", "1", "2"], size=16)
    assert report.ok, str(report)
    assert names(report) == ["0", "1", "2", "3", "logits"]
    assert report.model == "Sequential"


def test_a_layer_that_runs_twice_is_compared_where_it_runs_first() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.again = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.again(self.conv(x)))

    report = cv.check_onnx(Twice(), size=16)
    assert report.ok, str(report)
    assert [(row.layer, row.shape) for row in report.differences[::5]] == [
        ("conv", (4, 14, 14)),
        ("again", (4, 12, 12)),
    ]


def test_a_network_of_one_channel_that_starts_in_place() -> None:
    # Its pictures are channels-last as they are, so nothing would copy them before they are overwritten.
    report = cv.check_onnx(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 4, 3)), size=16)
    assert report.ok, str(report)


def test_a_network_that_cannot_be_cut_is_compared_as_it_runs() -> None:
    with pytest.warns(UserWarning, match="cannot be cut at last"):
        report = cv.check_onnx(Small(branch_on_shape), "last", size=16)
    assert report.ok, str(report)
    assert [row.compared for row in report.differences] == [
        "eager float32",
        "hooked float32",
        "hooked bfloat16",
    ]


def test_a_network_that_needs_float32_is_compared_in_it() -> None:
    with pytest.warns(UserWarning, match="Small does not run in bfloat16"):
        report = cv.check_onnx(Small(lambda x: x.float()), "last", size=16)
    assert report.ok, str(report)
    assert [row.compared for row in report.differences] == WAYS[:3]


def test_a_trunk_that_needs_float32_is_compared_in_it() -> None:
    class Typed(Small):
        """Follows its weights' type, which the graph takes for float32."""

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(x).to(next(self.parameters()).dtype)).relu()

    with pytest.warns(UserWarning, match="logits does not run in bfloat16"):
        report = cv.check_onnx(Typed(), "logits", size=16)
    assert report.ok, str(report)
    assert [row.compared for row in report.differences] == WAYS[:3]


@pytest.mark.slow
def test_compiled_trunks() -> None:
    model = nn.Sequential(*[module for _ in range(5) for module in (nn.Conv2d(3, 3, 3), nn.ReLU())])
    report = cv.check_onnx(model, size=16, compile=True)  # ten graphs, two more than one code may have
    assert report.ok, str(report)
    compared = [row.compared for row in report.differences]
    assert compared == [*WAYS[:3], "compiled float32", *WAYS[3:], "compiled bfloat16"] * 5


def test_what_cannot_be_cut_cannot_be_compiled() -> None:
    with pytest.warns(UserWarning, match="cannot be cut"), pytest.raises(cv.InputError, match="drop compile"):
        cv.check_onnx(Small(branch_on_shape), "last", size=16, compile=True)


def test_a_bare_network_of_another_size_is_checked_at_that_size() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 28 * 28, 5))
    with pytest.warns(UserWarning, match=r"does not run at 224 px: taking 28 px"):
        report = cv.check_onnx(network.eval(), ["conv1", "logits"], progress=False)
    assert (report.size, report.model, report.weights) == (28, "Sequential", "given")
    assert report.ok
    assert {row.layer for row in report.differences} == {"0", "logits"}
