"""The documentation builds without a warning, its links lead somewhere, and every code block in it runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from cnnvis_fast.commands.main import main
from cnnvis_fast.config import PRESETS
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.texturenet import textures

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {page: FENCE.findall(page.read_text()) for page in [ROOT / "README.md", *PAGES]}
RUN_ELSEWHERE = (".ci/run runs it", ("pip install", "pytest", "python -m venv", "git ", "python -m bench"))
LONG = {"README.md", "index.md", "from-lucent.md", "cluster.md", "atlas.md"}
MOST_STEPS, SIDE = 4, 64


def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    for page in PAGES:
        assert page.stem == "index" or f'href="{page.stem}.html"' in index, page.name
    reference = (tmp_path / "site" / "api.html").read_text()
    import cnnvis_fast

    for name in cnnvis_fast.__all__:
        ids = f'id="cnnvis_fast.{name}"', f'id="module-cnnvis_fast.{name}"'
        assert name == "__version__" or any(one in reference for one in ids), name


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http", "#")):
            path = page.parent / target.partition("#")[0]
            assert path.exists(), target


def test_languages_are_told() -> None:
    """A block that nobody can run would not be noticed when it rots."""
    for page, blocks in BLOCKS.items():
        code = {language for language, _ in blocks if not language.startswith("{")}  # else Sphinx's own
        assert code <= {"python", "sh"}, page.name


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with what readers have: weights, a photo, textures; pictures small enough for a test."""

    def random_weights(weights: Any, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        name = weights.meta.get("name") or type(weights).__name__.removesuffix("_Weights").lower()
        torch.manual_seed(0)
        return dict(torchvision.models.get_model(name, weights=None).state_dict())

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", random_weights)
    for preset in PRESETS.values():
        monkeypatch.setitem(preset, "steps", min(MOST_STEPS, preset.get("steps", MOST_STEPS)))
        monkeypatch.setitem(preset, "size", SIDE)
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(picture).resize((300, 260)).save(tmp_path / "dog.jpg")
    (tmp_path / "textures").mkdir()
    generator = torch.Generator().manual_seed(0)
    for name in list(textures.CLASSES)[:6]:
        drawn = (textures.draw(name, 2, 96, generator) * 255).round().byte().numpy()
        for number, texture in enumerate(drawn):
            to_image(texture).save(tmp_path / "textures" / f"{name}-{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(block: str) -> None:
    """The commands of a block, one a line, in this process; a file that one writes to by > is written."""
    for line in block.replace("\\\n", " ").splitlines():
        for command in filter(None, map(str.strip, line.split("&&"))):
            if command.startswith("#") or command.startswith(RUN_ELSEWHERE[1]):
                continue
            words = shlex.split(command, comments=True)
            out = words.pop() if words[-2:-1] == [">"] else os.devnull
            if out != os.devnull:
                words.pop()
            assert words.pop(0) == "cnnvis-fast", command
            if words[0] == "onnx":
                words += ["--size", str(SIDE)]
            with open(out, "w") as file, contextlib.redirect_stdout(file):
                try:
                    code = main(words)
                except SystemExit as stop:
                    code = stop.code or 0
            assert code == 0, command


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.name in LONG else page for page in BLOCKS],
    ids=lambda page: page.name,
)
@pytest.mark.filterwarnings("ignore")
def test_every_block_runs(page: Path, offline: Path) -> None:
    if "vgg16.safetensors" in page.read_text():
        vgg16 = torchvision.models.get_model("vgg16", weights=None, init_weights=False)
        save_file(
            {name: value.normal_(0, 0.02) for name, value in vgg16.state_dict().items()}, "vgg16.safetensors"
        )
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, block in BLOCKS[page]:
        if language == "sh":
            run_shell(block)
        elif language == "python":
            exec(compile(block, page.name, "exec"), names)
