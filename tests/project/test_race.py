"""The benchmarks' machinery at a tiny size: every table is made, and follows from what was done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import cnnvis_fast as cv

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last, so that the installed package goes before the folder of the same name

from bench import race, roofline, start  # noqa: E402
from bench.peers import original, upto, whole  # noqa: E402
from bench.support import charts, checkout, measure  # noqa: E402
from cnnvis_fast.ascent.plan import make_plan  # noqa: E402
from cnnvis_fast.config import configure  # noqa: E402

CASE, LAYER = "texturenet/features.14", "features.14"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_peers(_name: str) -> None:
    return None


def test_the_original_s_loop_takes_the_steps_of_the_preset_original() -> None:
    network, losses = cv.load_model("texturenet"), []
    step = original.stepper(upto(network, LAYER), LAYER, [3], size=48)
    losses = [float(step()) for _ in range(12)]
    # One rate, one loop: tests of `compat` hold the preset to the same. Here it has to climb.
    assert losses[-1] < losses[0]
    assert all(p.grad is None for p in network.parameters())


def test_a_network_as_used_and_a_cut_one_answer_alike() -> None:
    network, seen = cv.load_model("texturenet"), []
    x = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for copy in (whole(network), upto(network, LAYER)):
        copy.get_submodule(LAYER).register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
        copy(x)
    assert torch.allclose(*seen, rtol=1e-4, atol=1e-5)
    assert float(seen[0].min()) < 0, "a ReLU has overwritten what the hook read"
    assert all(p.requires_grad for p in whole(network).parameters())
    assert not any(p.requires_grad for p in upto(network, LAYER).parameters())


def test_the_race_of_steps_writes_a_row_per_contender(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(race, "installed", without_peers)
    table = race.race_steps([CASE], seconds=0.1, size=32)
    written = rows(results / "race.jsonl")
    assert {row["contender"] for row in written} == {*table[CASE]} == {race.ORIGINAL, "cnnvis_fast, batch 4"}
    assert all(
        row["ms_per_image_p20"] <= row["ms_per_image_p50"] <= row["ms_per_image_p80"] for row in written
    )
    assert all(row["torch"] == torch.__version__ and row["machine"] and row["commit"] for row in written)
    own = table[CASE]["cnnvis_fast, batch 4"]
    assert f"{table[CASE][race.ORIGINAL] / own:.2f} x" in capsys.readouterr().out


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "lucent", None)
    monkeypatch.delitem(sys.modules, "bench.peers.lucent", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0")
    monkeypatch.setitem(sys.modules, "kornia", None)
    assert race.installed("lucent") is None
    assert "lucent: left out" in capsys.readouterr().out


def entry(score: float, seconds: float) -> race.Entry:
    found = race.Entry(lambda _: torch.empty(0))
    found.scores, found.seconds = [score], seconds
    return found


def test_strong_stands_with_the_fewest_steps_that_reach_lucent() -> None:
    ours = {
        f"cnnvis_fast strong, {steps} steps": entry(score, steps)
        for steps, score in ((16, 1), (32, 2.1), (64, 3))
    }
    natural = {"cnnvis_fast natural, 128 steps": entry(1.5, 128)}
    table = race.final_table({**natural, **ours, race.LUCENT: entry(2.0, 640)})
    assert [*table] == [*natural, "cnnvis_fast strong, 32 steps", race.LUCENT]
    lines = [*race.summary_lines(table)]
    assert "20.00 times lucent's speed" in lines[1]
    beaten = race.final_table({**ours, race.LUCENT: entry(9.0, 640)})
    assert [*beaten] == ["cnnvis_fast strong, 64 steps", race.LUCENT]


def test_finished_filters_are_scored_off_the_clock(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "installed", without_peers)
    scored = race.Scorer.robust_scores

    def slowly(self: Any, *arguments: Any) -> Any:
        time.sleep(0.5)
        return scored(self, *arguments)

    monkeypatch.setattr(race.Scorer, "robust_scores", slowly)
    network, filters = cv.load_model("texturenet"), [1, 5, 7]
    entries = race.race_filters(network, LAYER, filters, steps=(2, 8), size=32, batch=2)
    few, many = entries["cnnvis_fast strong, 2 steps"], entries["cnnvis_fast strong, 8 steps"]
    assert few.seconds < 0.5
    assert many.score > few.score
    assert [len(one.scores) for one in entries.values()] == [3, 3, 3]
    expected = cv.maximize(
        network, LAYER, filters, preset="strong", steps=8, size=32, batch=2, progress=False
    )
    assert torch.equal(torch.cat(many.pixels), expected.pixels)
    assert len(rows(results / "race.jsonl")) == 3 * 2


def test_lucent_takes_part_where_it_is_installed() -> None:
    pytest.importorskip("lucent")
    table = race.race_steps([CASE], seconds=0.1, size=48)[CASE]
    assert {f"lucent, {how}, batch {b}" for how in ("as used", "cut, frozen") for b in (1, 8)} < {*table}
    entries = race.race_filters(cv.load_model("texturenet"), LAYER, [1], steps=(2,), peer_steps=2, size=48)
    assert len(entries[race.LUCENT].scores) == 1


def test_work_is_counted_as_by_hand() -> None:
    plan = make_plan(cv.load_model("texturenet"), "conv2", configure(size=32, batch=2, dtype="float32"))
    first = cv.load_model("texturenet").get_submodule("features.0")
    side = 32 // first.stride[0]
    # Forward and input gradient of the first convolution; the second is folded away.
    flops = 2 * 2 * first.weight.numel() * side * side
    counted, moved = roofline.counted(plan)
    assert counted == flops
    activations = 4 * (3 * 32 * 32 + first.out_channels * side * side)
    assert moved >= 2 * activations


def test_the_roofline_s_shares_follow_from_its_row(results: Path, tmp_path: Path) -> None:
    found = roofline.measured(CASE, seconds=0.1, side=64, copied=2**16, size=32)
    ceiling = found[f"matmul_{found['dtype']}_gflops"]
    reached = found["gflop_per_image"] / found["step_ms_per_image"] * 1e3
    assert found["step_share"] == pytest.approx(reached / ceiling, rel=0.02)
    assert found["network_share"] >= 0.5 * found["step_share"]
    assert rows(results / "roofline-cpu.jsonl")[0]["case"] == CASE
    assert CASE in roofline.table([found])
    roofline.chart(tmp_path / "shares.png", [found], "cpu")
    assert Image.open(tmp_path / "shares.png").width == 900


def test_bars_are_as_long_as_their_values_and_ours_have_a_color(tmp_path: Path) -> None:
    charts.bars(tmp_path / "a.png", "title", "ms", {"case": {"other": 20.0, "ours, now": 5.0}}, ours="ours")
    pixels = Image.open(tmp_path / "a.png").convert("RGB")
    colors = dict((color, count) for count, color in pixels.getcolors(100_000))
    ours, other = (colors[tuple(bytes.fromhex(code[1:]))] for code in (charts._OURS, charts._OTHERS))
    assert other / ours == pytest.approx(4, rel=0.03)


def test_a_start_is_told_layer_by_layer() -> None:
    found = start.measured("texturenet/conv1,conv5", modes=("eager",), size=32)["eager"]
    assert [*found["layers"]] == ["conv1", "conv5"]
    times = [found["imported_s"], found["loaded_s"]]
    for layer in found["layers"].values():
        times += [layer[name] for name in ("asked_s", "planned_s", "step_1_s", "step_2_s")]
    assert times == sorted(times)


@pytest.mark.slow
def test_the_gpu_s_script_runs_dry(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["same_bits"]["wrong"] == report["correctness"]["wrong"] == []
    assert report["profiles"]["microseconds"][CASE]
    assert report["torch"] == torch.__version__
    assert min(report["correctness"]["checked"].values()) >= 2
    assert report["race"]["ms_per_image_step"][CASE]
    assert report["roofline"]["rows"][0]["case"] == CASE
    assert len(report["kernels"]["share_of_copy"]) == 8
    assert report["atlas"]["warm"]["pictures"] == report["atlas"]["cold"]["pictures"] > 0
    assert (tmp_path / "gpu.png").exists()
    assert not list(tmp_path.glob("gpu-*.json"))  # what the parts' processes answered


def test_a_part_that_dies_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    from bench import gpu
    from bench.support import gpu_parts

    asked = argparse.Namespace(out=tmp_path, dry_run=True)
    found = gpu.in_a_process("no such part", 5.0, asked, dict(os.environ))
    assert found == {"failed": "the process ended without a result: 1"}

    def broken(*_given: object) -> str:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(gpu_parts, "mistake", broken)
    checked = gpu_parts.correctness(gpu_parts.SMALL, time.monotonic() + 5, {})
    assert len(checked["wrong"]) == sum(checked["checked"].values()) > len(gpu_parts.OPS)
    assert "illegal memory access" in checked["wrong"][0]


def test_samples_bring_their_lists_along() -> None:
    from support.network_samples import network_samples

    parts, *_ = network_samples("rectify")[0].inputs(device="meta")
    assert {part.device.type for part in parts} == {"meta"}


def test_a_machine_without_git_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert measure.environment("cpu")["commit"] == "unknown"


def test_the_gpu_s_script_refuses_a_machine_without_one() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_kernel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.samples import sample_inputs

    from bench.support import gpu_parts

    sample = sample_inputs("render_backward")[0]
    assert gpu_parts.mistake("render_backward", sample, "cpu") is None
    right = gpu_parts.ops.render_backward
    monkeypatch.setattr(gpu_parts.ops, "render_backward", lambda *given: right(*given) * 1.01)
    assert "error" in str(gpu_parts.mistake("render_backward", sample, "cpu"))


def test_a_checkout_that_is_not_installed_is_importable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Without `site` an installation of this very checkout is not seen, only what lies beside it.
    environment = checkout._linked(tmp_path)
    environment["PYTHONPATH"] += os.pathsep + str(Path(torch.__file__).parents[1])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    code = "import cnnvis_fast, cnnvis_fast.kernels.reference as r, importlib.metadata as m; "
    code += "print(cnnvis_fast.__file__, r.__file__, m.version('cnnvis_fast'))"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package, reference, version = done.stdout.split()
    assert package.startswith(str(tmp_path)) and reference.startswith(str(tmp_path))
    assert version == cv.__version__
    assert os.path.samefile(reference, ROOT / "kernels" / "reference" / "__init__.py")
