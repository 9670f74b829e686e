"""Whatever is handed over, the answer is one sentence: nothing runs, nothing is written elsewhere."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.forks import warm_parent
from support.hostile import MARK, corpus

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.names import parse_filters
from cnnvis_fast.networks.weights_file import open_weights
from cnnvis_fast.storage.files import plain_name
from cnnvis_fast.storage.job_folder import Store
from cnnvis_fast.storage.tiles import read_tile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs in forked processes")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text("0123456789-, ", max_size=30), st.lists(st.integers()), st.integers()))
def test_filters_are_read_or_refused(given):
    try:
        found = parse_filters(given, 64, "conv")
    except InputError as error:
        assert len(str(error)) < 300
    else:
        assert found
        assert set(found) <= set(range(64))


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1))
def test_names_of_layers_are_names_of_files(name):
    plain = plain_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}", plain)
    assert len({plain_name(other).lower() for other in (name, name + "/", "." + name)}) == 3


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(), st.text().map(str.encode), st.from_type(dict).map(repr).map(str.encode)))
def test_foreign_bytes_are_no_job_no_tile_and_no_pace(tmp_path, content):
    (tmp_path / "0000.png").write_bytes(content)
    assert read_tile(tmp_path / "0000.png") == (None, {})
    (tmp_path / "job.json").write_bytes(content)
    with pytest.raises(InputError):
        Store(tmp_path, {"model": "net"})
    (tmp_path / "job.json").unlink()
    (tmp_path / "log.jsonl").write_bytes(content)
    assert Store(tmp_path, {"model": "net"}).pace(["conv"]) is None
    for suffix in (".safetensors", ".pth"):
        (tmp_path / f"w{suffix}").write_bytes(content)
        with pytest.raises(InputError):
            open_weights(tmp_path / f"w{suffix}")


@pytest.fixture  # anew for each test: what was run once is no longer what it was
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
