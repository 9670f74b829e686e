"""The check against ONNX and its command refuse bad input, and leave whole files or none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.onnx_checks import Small, contents
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main
from cnnvis_fast.inspection.onnx import check, export
from cnnvis_fast.networks import trunk

pytestmark = pytest.mark.usefixtures("one_thread", "same_random_networks")


def branch_on_values(x: Tensor) -> Tensor:
    return 2 * x if x.mean() > 0 else x


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
