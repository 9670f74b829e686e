"""The promises on a real ImageNet network; run where its weights are at hand."""

import functools
import os
import statistics
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.graphs import OPS, captured_graphs

import cnnvis_fast as cv
from cnnvis_fast.ascent.devices import cpu_has_bfloat16
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure

LAYER = "features.12.expand3x3"
LUCENT: dict[str, dict[int, float]] = {
    "features.3.expand3x3": {
        0: 528.53,
        8: 2407.6,
        16: 2284.4,
        24: 1427.5,
        32: 1210.1,
        40: 1279.3,
        48: 529.14,
        56: 564.29,
    },
    "features.5.expand3x3": {
        0: 2886.1,
        16: 6093.6,
        32: 725.08,
        48: 2050.3,
        64: 278.42,
        80: 237.29,
        96: 1228.1,
        112: 7251.2,
    },
    "features.9.expand3x3": {
        0: 3355,
        24: 3593.5,
        48: 4046.2,
        72: 5322.9,
        96: 3617.6,
        120: 3116.8,
        144: 5031.7,
        168: 5672.3,
    },
    "features.12.expand3x3": {
        1: 3683.3,
        3: 4199.5,
        7: 1974,
        9: 2507,
        12: 2942.7,
        64: 1916.7,
        128: 2900.3,
        192: 2520.9,
    },
}
"""Robust scores that lucent 0.1.8 reaches on these filters with its 512 default steps."""

assets = os.environ.get("CNNVIS_FAST_TEST_ASSETS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not assets, reason="CNNVIS_FAST_TEST_ASSETS does not point at the test assets"),
]


@pytest.fixture(scope="module")
def network():
    return cv.load_model("squeezenet1_0", Path(assets or "") / "weights" / "squeezenet1_0.safetensors")


@pytest.fixture(scope="module")
def made(network):
    """The 32 units of LUCENT by preset: their records, and robust scores as shares of lucent's."""

    def make(preset: str) -> tuple[list[dict], list[float]]:
        records, shares = [], []
        for layer, reached in LUCENT.items():
            pictures = cv.maximize(network, layer, reached, preset=preset, progress=False)
            records += pictures.records()
            scores = pictures.robust_scores.tolist()
            shares += [score / best for score, best in zip(scores, reached.values(), strict=True)]
        return records, shares

    return functools.cache(make)


def test_the_weights_are_read_right(network):
    from torchvision.models import SqueezeNet1_0_Weights

    weights = SqueezeNet1_0_Weights.DEFAULT
    photo = Image.open(Path(assets or "") / "images" / "labrador.jpg").convert("RGB")
    with torch.no_grad():
        best = network(weights.transforms()(photo)[None]).softmax(1).max(1)
    assert weights.meta["categories"][int(best.indices)] == "Labrador retriever"
    assert float(best.values) > 0.9


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def test_natural_pictures_are_clean_and_strong_at_every_depth(made):
    records, shares = made("natural")
    assert {record["status"] for record in records} == {"ok"}
    assert mean(record["saturated"] for record in records) < 0.05
    assert mean(record["high_frequency"] for record in records) < 0.05
    assert mean(shares) >= 0.8


def test_strong_pictures_beat_lucents(made):
    _, shares = made("strong")
    assert mean(share > 1 for share in shares) >= 0.9


def test_same_bits_whatever_runs_beside(network):
    options = {"steps": 16, "progress": False}
    filters = [3, 17, 40]
    together = cv.maximize(network, LAYER, filters, **options)
    assert torch.equal(cv.maximize(network, LAYER, range(41), **options).images[filters], together.images)
    # In float32 libraries may sum in another order at another batch (docs/reproducibility.md).
    for batch in (4, 16) if cpu_has_bfloat16() else ():
        again = cv.maximize(network, LAYER, filters[::-1], batch=batch, **options)
        assert torch.equal(again.images.flip(0), together.images)
    for row, channel in enumerate(filters):
        alone = cv.maximize(network, LAYER, [channel], **options)
        assert torch.equal(alone.images[0], together.images[row])


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="float32 promises this on one number of threads alone")
def test_same_bits_on_one_thread_and_on_two(network, set_threads):
    results = []
    for threads in (1, 2):
        set_threads(threads)
        results.append(cv.maximize(network, LAYER, [3, 17], steps=16, progress=False))
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].history, results[1].history)


def test_the_compiled_step_is_one_graph_and_scores_like_the_plain_one(network):
    plan = make_plan(network, LAYER, configure(steps=2, batch=2))
    (graph,) = captured_graphs(plan)
    called = [str(node.target) for node in graph.graph.nodes]
    assert [called.count(f"cnnvis_fast.{name}.default") for name in OPS] == [1] * len(OPS)
    # Other roundings lead each picture elsewhere, to scores that differ by 3 % (standard deviation): the mean
    # of 24 is good to half a percent.
    plain = cv.maximize(network, LAYER, range(24), progress=False, compile=False)
    fused = cv.maximize(network, LAYER, range(24), progress=False, compile=True)
    assert float(fused.robust_scores.mean()) == pytest.approx(float(plain.robust_scores.mean()), rel=0.01)
