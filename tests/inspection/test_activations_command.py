"""The command that writes sheets of activation maps."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import cnnvis_fast as cv
from cnnvis_fast.commands.main import main


def test_the_command_writes_sheets_and_prints_their_paths(photo, tmp_path, capsys):
    out = tmp_path / "maps"
    options = [
        "--layer",
        "conv1",
        "--layer",
        "features.4",
        "--follow",
        "17",
        "--size",
        "64",
        "--out",
        str(out),
    ]
    assert main(["activations", "texturenet", str(photo), *options]) == 0
    printed, err = capsys.readouterr()
    names = ["_follow-17.png", "features.0.png", "features.4.png"]
    assert printed.splitlines() == [str(out / name) for name in names]
    assert "Traceback" not in err
    with Image.open(out / "features.0.png") as image:
        expected = cv.activation_maps("texturenet", photo, "conv1", size=64).sheet("conv1")
        assert np.array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("options", [[], ["--chained"], ["--seed", "3", "--size", "40"]], ids=str)
def test_the_command_takes_noise(options, tmp_path):
    assert main(["activations", "texturenet", "noise", "--out", str(tmp_path), *options]) == 0
    with Image.open(tmp_path / "_input.png") as image:
        values = np.asarray(image)
    seed, size = (3, 40) if options[:1] == ["--seed"] else (0, 96)
    assert np.array_equal(values, (cv.noise_image(size, seed) * 255).round().byte().permute(1, 2, 0).numpy())
    assert (values.min(), values.max()) == (125, 189)
    assert len(list(tmp_path.iterdir())) == 6


def test_wrong_arguments_are_one_sentence_and_leave_nothing(photo, tmp_path, capsys):
    text = tmp_path / "text.jpg"
    text.write_text("not a photo\n")
    out = tmp_path / "maps"
    cases = [
        (["texturenet", str(tmp_path / "missing.jpg")], "no photo at"),
        (["texturenet", str(tmp_path)], "is a folder"),
        (["texturenet", str(text)], "is not a photo"),
        (["texturenet", str(photo), "--layer", "conv9"], "did you mean"),
        (["texturenet", str(photo), "--layer", "classifier"], "yields no maps"),
        (["texturenet", str(photo), "--follow", "500"], "no layer has a channel 500"),
        (["texturenet", str(photo), "--resize", "crop"], "weights, squeeze"),
        (["texturenet", str(photo), "--scale", "all"], "each, common"),
        (["texturenet", str(photo), "--size", "3"], "8 to 8192"),
        (["texturenet", "noise", "--seed", "-1"], "seed"),
        (["nonet", str(photo)], "unknown model"),
    ]
    for arguments, words in cases:
        assert main(["activations", *arguments, "--out", str(out)]) == 2
        printed, err = capsys.readouterr()
        assert (printed, err.count("\n")) == ("", 1), err
        assert words in err
    assert not out.exists()


def test_a_missing_photo_is_told_before_weights_are_loaded(monkeypatch, capsys):
    monkeypatch.setattr("cnnvis_fast.networks.load.load_model", lambda *_: pytest.fail("weights were loaded"))
    assert main(["activations", "vgg16", "missing.jpg", "--out", "maps"]) == 2
    assert "no photo at" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_is_one_line_and_leaves_whole_files(photo, tmp_path):
    command = [sys.executable, "-m", "cnnvis_fast", "activations", "squeezenet1_0", str(photo)]
    process = subprocess.Popen(
        [*command, "--weights", "none", "--out", str(tmp_path / "maps")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("maps/*.png")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert printed == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "cnnvis-fast: interrupted"
    files = list((tmp_path / "maps").iterdir())
    assert 0 < len(files) < 27
    for path in files:
        with Image.open(path) as image:
            image.load()
