"""The promises on a real ImageNet network; run where its weights are at hand."""

import os
from pathlib import Path

import pytest
import torch
from graphs import OPS, captured_graphs
from PIL import Image

import cnnvis_fast as cv
from cnnvis_fast.config import configure
from cnnvis_fast.plan import make_plan

LAYER = "features.12.expand3x3"
LUCENT = {1: 3749, 3: 4370, 7: 1979, 9: 2524, 12: 2923}
"""Robust scores that lucent 0.1.8 reaches on these filters with its 512 default steps."""

assets = os.environ.get("CNNVIS_FAST_TEST_ASSETS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not assets, reason="CNNVIS_FAST_TEST_ASSETS does not point at the test assets"),
]


@pytest.fixture(scope="module")
def network():
    return cv.load_model("squeezenet1_0", Path(assets or "") / "weights" / "squeezenet1_0.safetensors")


def share_of_lucent(pictures: cv.Pictures) -> float:
    scores = dict(zip(pictures.filters, pictures.robust_scores.tolist(), strict=True))
    return sum(scores[channel] / reached for channel, reached in LUCENT.items()) / len(LUCENT)


def test_the_weights_are_read_right(network):
    from torchvision.models import SqueezeNet1_0_Weights

    weights = SqueezeNet1_0_Weights.DEFAULT
    photo = Image.open(Path(assets or "") / "images" / "labrador.jpg").convert("RGB")
    with torch.no_grad():
        best = network(weights.transforms()(photo)[None]).softmax(1).max(1)
    assert weights.meta["categories"][int(best.indices)] == "Labrador retriever"
    assert float(best.values) > 0.9


def test_natural_pictures_are_clean_and_strong(network):
    pictures = cv.maximize(network, LAYER, range(64), progress=False)
    rows = pictures.records()
    assert sum(row["high_frequency"] for row in rows) / 64 < 0.05
    assert sum(row["saturated"] for row in rows) / 64 < 0.07
    assert set(pictures.status) == {"ok"}
    assert share_of_lucent(pictures) >= 0.7


def test_strong_pictures_are_about_as_strong_as_lucents(network):
    assert share_of_lucent(cv.maximize(network, LAYER, LUCENT, preset="strong", progress=False)) >= 0.95


def test_same_bits_whatever_runs_beside(network):
    options = {"steps": 16, "progress": False}
    filters = [3, 17, 40]
    together = cv.maximize(network, LAYER, filters, **options)
    assert torch.equal(cv.maximize(network, LAYER, range(41), **options).images[filters], together.images)
    for batch in (4, 16):
        again = cv.maximize(network, LAYER, filters[::-1], batch=batch, **options)
        assert torch.equal(again.images.flip(0), together.images)
    for row, channel in enumerate(filters):
        alone = cv.maximize(network, LAYER, [channel], **options)
        assert torch.equal(alone.images[0], together.images[row])


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
    assert [called.count(f"cnnvis_fast.{name}.default") for name in OPS] == [1, 1, 1]
    plain = cv.maximize(network, LAYER, range(8), progress=False, compile=False)
    fused = cv.maximize(network, LAYER, range(8), progress=False, compile=True)
    assert float(fused.robust_scores.mean()) == pytest.approx(float(plain.robust_scores.mean()), rel=0.01)
