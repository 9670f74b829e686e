"""The command line: what it prints, what it leaves behind, and one sentence for whatever is wrong."""

import csv
import importlib.metadata
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main

LAST = "features.14"
COMMANDS = ("layers", "maximize", "atlas", "filters", "activations", "onnx", "gallery", "patches", "doctor")
QUICK = ["--steps", "2", "--size", "32"]
SCRIPT = Path(sysconfig.get_path("scripts"), "cnnvis-fast")


@pytest.fixture
def run(capsys):
    """Runs a command in this process: exit code, stdout, stderr."""

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def tiles(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[0-9]*.png")}


def contents(folder):
    """Every file but the log, which tells of times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


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


# What is wrong


@pytest.fixture
def files(tmp_path):
    """Weights that are none of texturenet's, each in its way."""
    network = cv.load_model("texturenet", None)
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text(".hello world\n")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"state_dict": Path("x")}))
    save_file({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "alexnet.safetensors")
    (tmp_path / "file").write_text("mine")
    return tmp_path


MAKING = ["maximize", "texturenet", "conv5", "--out", "OUT"]
WRONG = {
    "no command": ([], "COMMAND"),
    "unknown command": (["maximise"], "maximise"),
    "unknown flag": (["layers", "--colour"], "--colour"),
    "maximize without MODEL": (["maximize"], "MODEL"),
    "maximize without layer": (["maximize", "texturenet", "--out", "OUT"], "layer"),
    "maximize without --out": (["maximize", "texturenet", "conv5"], "--out"),
    "layers of an unknown model": (["layers", "texturnet"], "texturenet"),
    "unknown model": (["maximize", "resnet19", "conv5", "--out", "OUT"], "resnet18"),
    "unknown model of an atlas": (["atlas", "vgg61", "--out", "OUT"], "vgg16"),
    "weights as model": (["maximize", "FILES/whole.pth", "conv1", "--out", "OUT"], "(--weights)"),
    "missing weights as model": (["layers", "missing.safetensors"], "is a file of weights, not a network"),
    "some file as model": (["atlas", "FILES/file", "--out", "OUT"], "a file, not a network: name a network"),
    "unknown layer": (["maximize", "texturenet", "conv9", "--out", "OUT"], "conv5"),
    "unknown layer of an atlas": (["atlas", "--layer", "conv1", "--layer", "pol", "--out", "OUT"], "pool"),
    "layer and all layers": (["atlas", "--layer", "conv1", "--all-layers", "--out", "OUT"], "--layer"),
    "filter out of range": ([*MAKING, "--filters", "96"], "0 to 95"),
    "range out of range": ([*MAKING, "--filters", "90-100"], "0 to 95"),
    "filter out of a later layer's range": (
        ["atlas", "--layer", "conv5", "--layer", "conv1", "--filters", "50", "--out", "OUT"],
        "0 to 23",
    ),
    "filters unreadable": ([*MAKING, "--filters", "3-a"], "0-63,100"),
    "filters empty": ([*MAKING, "--filters", ""], "0-63,100"),
    "weights missing": ([*MAKING, "--weights", "FILES/missing.pth"], "missing.pth"),
    "weights unknown": ([*MAKING, "--weights", "IMAGENET1K_V1"], "default"),
    "weights a folder": ([*MAKING, "--weights", "FILES"], "weights"),
    "weights truncated": ([*MAKING, "--weights", "FILES/cut.safetensors"], "cut.safetensors"),
    "weights truncated pth": ([*MAKING, "--weights", "FILES/cut.pth"], "cut.pth"),
    "weights a text": ([*MAKING, "--weights", "FILES/text.pth"], "text.pth"),
    "weights a pickle": ([*MAKING, "--weights", "FILES/pickle.pth"], "pickle.pth"),
    "weights of another network": (
        [*MAKING, "--weights", "FILES/alexnet.safetensors"],
        "alexnet.safetensors",
    ),
    "layers with weights of another network": (
        ["layers", "texturenet", "--weights", "FILES/alexnet.safetensors"],
        "alexnet.safetensors",
    ),
    "output below a file": ([*MAKING[:-1], "FILES/file/job"], "file/job"),
    "output a file": ([*MAKING[:-1], "FILES/file"], "file is a file: pass a folder"),
    "steps 0": ([*MAKING, "--steps", "0"], "`steps`"),
    "steps a word": ([*MAKING, "--steps", "many"], "--steps"),
    "size 0": ([*MAKING, "--size", "0"], "`size`"),
    "size below zero": ([*MAKING, "--size=-32"], "`size`"),
    "size 0 of a listing": (["layers", "--size", "0"], "size"),
    "batch 0": ([*MAKING, "--batch", "0"], "`batch`"),
    "seed below zero": ([*MAKING, "--seed=-1"], "`seed`"),
    "unknown preset": ([*MAKING, "--preset", "pretty"], "natural"),
    "unknown dtype": ([*MAKING, "--dtype", "float16"], "bfloat16"),
    "unknown device": ([*MAKING, "--device", "tpu"], "`device`"),
    "unknown objective": ([*MAKING, "--objective", "class"], "logit"),
    "objective that does not fit": ([*MAKING, "--objective", "logit"], "logits"),
    "a CUDA device that is not there": ([*MAKING, "--device", "cuda:99"], "cuda:99"),
}


def assert_one_sentence(code, out, err, word):
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("cnnvis-fast")
    assert word in lines[0]


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_one_sentence_and_leaves_nothing(case, run, files, monkeypatch):
    arguments, word = WRONG[case]
    out = files / "out" / "job"
    monkeypatch.chdir(files)
    before = contents(files)
    filled = [part.replace("OUT", str(out)).replace("FILES", str(files)) for part in arguments]
    if arguments and arguments[0] in ("maximize", "atlas"):
        # Before the case's own, which win: a check that is missing then costs no minutes.
        filled[1:1] = QUICK
    assert_one_sentence(*run(*filled), word)
    assert not out.parent.exists()
    assert contents(files) == before
    assert not (files / "atlas").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_without_cuda_is_refused(run, tmp_path):
    answer = run("maximize", "texturenet", "conv5", "--out", tmp_path / "job", "--device", "cuda", *QUICK)
    assert_one_sentence(*answer, "cuda")
    assert not (tmp_path / "job").exists()


def test_another_jobs_folder_is_refused_and_left_alone(run, tmp_path):
    common = ["maximize", "texturenet", "conv1", "--filters", "0", "--out", tmp_path, "--size", "32"]
    assert run(*common, "--steps", "2")[0] == 0
    before = contents(tmp_path)
    assert_one_sentence(*run(*common, "--steps", "3"), "steps")
    assert contents(tmp_path) == before


def test_a_full_disk_is_one_sentence(run, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the job's description but not for a tile.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        answer = run("maximize", "texturenet", "conv1", "--filters", "0", "--out", tmp_path, "--steps", "4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_one_sentence(*answer, str(tmp_path))
    assert tiles(tmp_path) == {}
    assert (tmp_path / "job.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_warning_is_one_line_too(run, tmp_path, monkeypatch):
    import warnings

    load = cv.atlas.__globals__["describe"]

    def describe(*arguments):
        warnings.warn("mind the gap", stacklevel=2)
        return load(*arguments)

    monkeypatch.setitem(cv.atlas.__globals__, "describe", describe)
    code, _, err = run("maximize", "texturenet", "conv1", "--filters", "0", "--out", tmp_path, *QUICK)
    assert code == 0
    assert err == "cnnvis-fast: note: mind the gap\n"


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
