"""The command line answers whatever is wrong with one sentence and leaves nothing behind."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.command_line import QUICK, assert_one_sentence, tiles
from support.jobs import contents

import cnnvis_fast as cv


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
