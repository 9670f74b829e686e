"""The check against ONNX: it passes where it must, sees what is wrong, and leaves whole files or none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from support.networks import NETWORKS, SIZE, outputs_at, random_network
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.inspection.onnx import check, export
from cnnvis_fast.inspection.onnx.report import difference
from cnnvis_fast.kernels import ops as kernels
from cnnvis_fast.networks import trunk

pytestmark = pytest.mark.usefixtures("one_thread")
CONVOLUTIONS = ["features.0", "features.4", "features.8", "features.11", "features.14"]
WAYS = ["eager float32", "trunk float32", "program float32", "trunk bfloat16", "program bfloat16"]


@pytest.fixture(autouse=True)
def same_weights() -> None:
    torch.manual_seed(0)


def network(name: str) -> nn.Module:
    return random_network(name, torch.Generator().manual_seed(0))


def names(report: cv.OnnxReport) -> list[str]:
    return list(dict.fromkeys(row.layer for row in report.differences))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Small(nn.Module):
    """Two convolutions with whatever between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv, self.last, self.between = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.conv(x)))


def branch_on_values(x: Tensor) -> Tensor:
    return 2 * x if x.mean() > 0 else x


def branch_on_shape(x: Tensor) -> Tensor:
    return 2 * x if x.shape[2] > 1 else x


# What agrees


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


# What differs


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


def test_a_bare_network_of_another_size_is_checked_at_that_size() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 28 * 28, 5))
    with pytest.warns(UserWarning, match=r"does not run at 224 px: taking 28 px"):
        report = cv.check_onnx(network.eval(), ["conv1", "logits"], progress=False)
    assert (report.size, report.model, report.weights) == (28, "Sequential", "given")
    assert report.ok
    assert {row.layer for row in report.differences} == {"0", "logits"}


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


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "conv9"}, "unknown layer 'conv9'"),
        ({"layers": ["conv1", "features"]}, "'features' yields no maps or vectors of its own"),
        ({"layers": 3}, "`layers` must be names"),
        ({"size": 4}, "`size` must be"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), "size": 16}, "has no convolution"),
        ({"model": Small(branch_on_values)}, r"Small cannot be exported \(.+\): it must consist of"),
        ({"model": Small(nn.FractionalMaxPool2d(2, output_size=4))}, "Small cannot be exported"),
        ({"path": "same", "json_path": "./same"}, "cannot both be same"),
        ({"path": ""}, "not a file's name"),
        ({"path": "."}, "not a file's name"),
        ({"path": "taken/t.onnx"}, "cannot write to taken/t.onnx"),
        ({"json_path": "taken/t.json"}, "cannot write to taken/t.json"),
        ({"path": "/proc/no/t.onnx"}, "cannot write to /proc/no/t.onnx"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(cv.InputError, match=message):
        cv.check_onnx(**{"model": "texturenet", "path": "new/t.onnx", "size": 32, **arguments})
    assert [*tmp_path.iterdir()] == [tmp_path / "taken"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(cv.InputError, match=rf"the package {package} is missing.*'cnnvis_fast\[onnx\]'"):
        cv.check_onnx("texturenet")


def test_the_library_imports_without_the_packages() -> None:
    code = "import sys; sys.modules.update(onnx=None, onnxscript=None, onnxruntime=None); import cnnvis_fast"
    subprocess.run([sys.executable, "-c", code], check=True)


# Files


def test_a_file_takes_its_place_with_its_neighbor_once_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "network.onnx"
    for content in (b"one", b"two"):
        with export.staged(path) as place:
            place.write_bytes(content)
            place.with_name("network.onnx.data").write_bytes(content)
            assert (path.read_bytes() if path.exists() else None) == (None if content == b"one" else b"one")
        assert contents(path.parent) == {"network.onnx": content, "network.onnx.data": content}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_file_stays_as_it_was_when_something_went_wrong(tmp_path: Path, stop: type[BaseException]) -> None:
    (tmp_path / "network.onnx").write_bytes(b"one")
    with pytest.raises(stop), export.staged(tmp_path / "network.onnx") as place:
        place.write_bytes(b"tw")
        raise stop
    assert contents(tmp_path) == {"network.onnx": b"one"}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(cv.InputError, match=r"cannot write to .*network\.onnx \(No space left on device\)"),
        export.staged(tmp_path / "network.onnx"),
    ):
        raise OSError(28, "No space left on device")


# The command


def test_the_command_writes_both_files_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, json_path = tmp_path / "new" / "t.onnx", tmp_path / "t.json"
    layers = ["--layer", "conv2", "--layer", "logits"]
    command = ["onnx", "texturenet", *layers, "--size", "48", "--out", str(path), "--json", str(json_path)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == [
        *("layer", *["features.4"] * 5, *["logits"] * 5),
        "2",
    ]
    assert {*contents(tmp_path)} == {"new/t.onnx", "t.json"}


def test_the_command_ends_with_1_and_the_first_bad_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "FLOAT32_LIMIT", -1.0)
    path, json_path = tmp_path / "t.onnx", tmp_path / "t.json"
    command = ["onnx", "texturenet", "--size", "32", "--out", str(path), "--json", str(json_path)]
    assert main(command) == 1
    assert "5 of 5 layers of texturenet differ; in the first, features.0, eager" in capsys.readouterr().out
    assert json.loads(json_path.read_text())["first_bad"] == "features.0"
    assert path.exists()


@pytest.mark.parametrize("options", [["--layer", "conv9"], ["--weights", "no.pth"], ["--size", "1"]])
def test_the_command_ends_with_2_and_one_sentence(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["onnx", "texturenet", "--out", str(tmp_path / "t.onnx"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cnnvis-fast: ")
    assert len(err.splitlines()) == 1
    assert contents(tmp_path) == {}


def test_an_interrupted_command_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(model: nn.Module, layer: str, example: Tensor) -> trunk.Trunk:
        if layer == "features.4":
            raise KeyboardInterrupt
        return plain(model, layer, example)

    plain = trunk.cut
    monkeypatch.setattr(trunk, "cut", cut)
    (tmp_path / "t.onnx").write_text("earlier")
    assert main(["onnx", "texturenet", "--size", "32", "--out", str(tmp_path / "t.onnx")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "cnnvis-fast: interrupted"
    assert contents(tmp_path) == {"t.onnx": b"earlier"}
