"""Whatever is handed over, the answer is one sentence: nothing runs, nothing is written elsewhere."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from forks import warm_parent
from hostile import MARK, corpus

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs in forked processes")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("hostile"))


def snapshot(folder):
    """Every file but those in the places that cases may write to."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "out" not in path.relative_to(folder).parts
    }


def check(cases, tmp_path):
    folder = Path(cases[0].out).parents[1]
    before, report = snapshot(folder), tmp_path / "report.json"
    with warm_parent() as parent:
        parent.start("hostile_cases", str(report), [asdict(case) for case in cases])
        assert parent.wait() == 0
    outcomes = json.loads(report.read_text())
    assert len(outcomes) == len(cases)
    troubles = []
    for case, outcome in zip(cases, outcomes, strict=True):
        lines = outcome["error"].strip().splitlines()
        if outcome["traceback"] or "Traceback" in outcome["error"]:
            troubles.append((case.name, outcome["traceback"][-1500:]))
        elif outcome["code"] != 2 and (case.refused or outcome["code"] != 0):
            troubles.append((case.name, "code", outcome["code"], outcome["error"]))
        elif outcome["code"] == 2 and (
            len(lines) < 1 or not lines[-1].isprintable() or len(lines[-1]) > 1000
        ):
            troubles.append((case.name, "no sentence", outcome["error"][:300]))
        elif outcome["code"] == 2 and any(not line.startswith("cnnvis-fast: note:") for line in lines[:-1]):
            troubles.append((case.name, "several lines", outcome["error"][:300]))
        if outcome["seconds"] > 10 or outcome["megabytes"] > 2000 or outcome["forbidden"]:
            troubles.append((case.name, outcome["seconds"], outcome["megabytes"], outcome["forbidden"]))
    slowest, largest = (max(outcome[name] for outcome in outcomes) for name in ("seconds", "megabytes"))
    codes = [outcome["code"] for outcome in outcomes]
    print(
        f"{len(cases)} bad inputs: {codes.count(2)} refused, {codes.count(0)} harmless; at most "
        f"{slowest:.1f} CPU seconds and {largest:.0f} MB more each"
    )
    assert not troubles, "\n".join(map(str, troubles))
    assert snapshot(folder) == before
    assert not os.path.exists(MARK)


def test_a_fifth_of_the_bad_inputs_gets_a_sentence(cases, tmp_path):
    check(cases[::5], tmp_path)


@pytest.mark.slow
def test_every_bad_input_gets_a_sentence(cases, tmp_path):
    assert len(cases) >= 200
    check(cases, tmp_path)
