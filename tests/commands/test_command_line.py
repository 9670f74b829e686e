"""The command line: what it prints, what it leaves behind, and how it ends as a program."""

import csv
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from support.command_line import QUICK, assert_one_sentence, tiles
from support.jobs import contents

import cnnvis_fast as cv

LAST = "features.14"
COMMANDS = ("layers", "maximize", "atlas", "filters", "activations", "onnx", "gallery", "patches", "doctor")
SCRIPT = Path(sysconfig.get_path("scripts"), "cnnvis-fast")


# What works


def test_layers_prints_a_table(run):
    code, out, err = run("layers", "texturenet")
    assert (code, err) == (0, "")
    assert out.strip() == str(cv.layers("texturenet"))


def test_layers_takes_texturenet_by_itself(run):
    assert run("layers") == run("layers", "texturenet")


def test_layers_prints_json(run):
    code, out, err = run("layers", "texturenet", "--size", "64", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert rows == cv.layers("texturenet", size=64).as_dicts()
    assert rows[0]["height"] == 64


def test_layers_downloads_nothing(run, monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("a listing reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, out, _ = run("layers", "squeezenet1_0")
    assert code == 0
    assert "features.12.expand3x3" in out


def test_doctor_tells_versions_devices_and_ops(run):
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    versions = [importlib.metadata.version(name) for name in ("cnnvis_fast", "torch", "torchvision")]
    for word in (*versions, "auto", "cpu", "render", "ascend_", "program True", "MaxPool2d"):
        assert word in out, word


def test_maximize_prints_a_rate_and_the_sheets_path(run, tmp_path):
    code, out, err = run(
        "maximize", "texturenet", "conv5", "--filters", "3,17-18", "--out", tmp_path / "new" / "job", *QUICK
    )
    assert (code, "cnnvis-fast" in err) == (0, False)
    first, path, page = out.splitlines()
    found = re.fullmatch(r"3 pictures in \d+\.\d s \(\d+\.\d\d pictures/s\); status: (.+)", first)
    assert found
    assert sum(int(part.split()[0]) for part in found[1].split(", ")) == 3
    assert path == str(tmp_path / "new" / "job" / LAST / "sheet.png")
    assert page == str(tmp_path / "new" / "job" / "index.html")
    with Image.open(path) as sheet:
        sheet.load()
    assert {*tiles(tmp_path / "new" / "job")} == {f"{LAST}/{n:04d}.png" for n in (3, 17, 18)}
    with (tmp_path / "new" / "job" / "scores.csv").open() as file:
        assert [row["filter"] for row in csv.DictReader(file)] == ["3", "17", "18"]


def test_atlas_makes_what_is_missing_and_prints_every_sheet(run, tmp_path):
    common = ["--out", tmp_path, "--filters", "0,2", *QUICK]
    code, out, err = run("atlas", "texturenet", "--layer", "conv1", "--layer", "logits", *common)
    assert (code, "cnnvis-fast" in err) == (0, False)
    lines = out.splitlines()
    assert lines[0].startswith("4 pictures in ")
    assert lines[1:-1] == [str(tmp_path / name / "sheet.png") for name in ("features.0", "logits")]
    code, out, err = run("atlas", "texturenet", "--layer", "conv1", "--layer", "conv2", *common)
    assert (code, "cnnvis-fast" in err) == (0, False)
    assert out.startswith("2 pictures in ")
    assert len(tiles(tmp_path)) == 6
    code, out, err = run("atlas", "texturenet", "--layer", "conv2", *common)
    assert (code, "cnnvis-fast" in err) == (0, False)
    assert re.match(r"0 pictures in \d+\.\d s; status: ", out)


def test_atlas_needs_no_argument(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("atlas", "--filters", "1", "--steps", "1", "--size", "32")
    assert code == 0
    assert out.splitlines()[1] == str(Path("atlas", LAST, "sheet.png"))
    assert {*tiles(tmp_path)} == {f"atlas/{LAST}/0001.png"}


def test_all_layers_are_all_convolutions(run, tmp_path):
    code, out, _ = run("atlas", "--all-layers", "--filters", "1", "--out", tmp_path, *QUICK)
    assert code == 0
    folders = [Path(line).parent.name for line in out.splitlines()[1:-1]]
    assert folders == ["features.0", "features.4", "features.8", "features.11", "features.14"]


def test_the_command_and_the_library_write_the_same_bytes(run, tmp_path):
    code, _, _ = run("maximize", "texturenet", "conv3", "--filters", "5,1", "--out", tmp_path / "a", *QUICK)
    assert code == 0
    cv.atlas("texturenet", "conv3", tmp_path / "b", filters=[1, 5], steps=2, size=32, progress=False)
    cv.gallery(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_option_reaches_the_job(run, tmp_path):
    options = {
        **{"preset": "strong", "objective": "neuron", "steps": 3, "size": 40, "seed": 5, "batch": 2},
        **{"device": "cpu", "dtype": "float32"},
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    code, _, err = run(
        "maximize", "texturenet", "conv1", "--filters", "0", "--out", tmp_path, *flags, "--no-compile"
    )
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "job.json").read_text())["config"]
    assert {name: config[name] for name in options} == options
    assert config["compile"] is False
    assert config["second_moment"] == "coefficient"


def test_weights_may_be_a_file(run, tmp_path):
    save_file(cv.load_model("texturenet", None).state_dict(), tmp_path / "mine.safetensors")
    code, _, _ = run(
        *("maximize", "texturenet", "conv1", "--weights", tmp_path / "mine.safetensors"),
        *("--filters", "0", "--out", tmp_path / "job", *QUICK),
    )
    assert code == 0
    job = json.loads((tmp_path / "job" / "job.json").read_text())
    assert (job["model"], job["weights"]) == ("texturenet", "mine.safetensors")


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS)], ids=lambda c: " ".join(c) or "none"
)
def test_help_is_shown(command, run):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: cnnvis-fast")
    if not command:
        assert all(name in out for name in COMMANDS)


# As a program


@pytest.mark.parametrize(
    "program", [[SCRIPT], [sys.executable, "-m", "cnnvis_fast"]], ids=["script", "module"]
)
def test_the_program_answers_in_a_sentence(program, tmp_path):
    command = [*program, "maximize", "texturenet", "conv5", "--out", tmp_path / "job", "--filters", "96"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert_one_sentence(done.returncode, done.stdout, done.stderr, "0 to 95")
    assert not (tmp_path / "job").exists()


def test_nobody_reading_is_no_error_of_ours():
    process = subprocess.Popen(
        [SCRIPT, "layers", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert process.returncode != 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_keeps_finished_tiles_and_the_next_run_completes(tmp_path):
    out = tmp_path / "job"
    command = [SCRIPT, "atlas", "texturenet", "--layer", "conv5", "--filters", "0-47", "--out", out]
    command += ["--batch", "4", "--steps", "64", "--size", "32"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not tiles(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert printed == ""
    assert re.fullmatch(r"cnnvis-fast: interrupted; .*\n", err)

    kept = tiles(out)
    assert 0 < len(kept) < 48
    assert not list(out.rglob("*.tmp"))
    with (out / "scores.csv").open() as file:
        rows = [row["filter"] for row in csv.DictReader(file)]
    assert [f"{LAST}/{int(number):04d}.png" for number in rows] == sorted(kept)

    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"{48 - len(kept)} pictures in ")
    options = {"batch": 4, "steps": 64, "size": 32, "progress": False}
    cv.atlas("texturenet", "conv5", tmp_path / "undisturbed", filters="0-47", **options)
    cv.gallery(tmp_path / "undisturbed")  # as the command does
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert {name: tiles(out)[name] for name in kept} == kept
