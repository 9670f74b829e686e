"""One step compiles to one graph, and the compiled loop finds what the eager loop finds."""

from collections import Counter

import pytest
import torch
from support.graphs import OPS, captured_graphs

import cnnvis_fast as cv
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.networks.preprocessing import Source


@pytest.mark.parametrize(
    "options", [{}, {"preset": "strong"}, {"transforms": "jitter", "parameters": "pixel"}]
)
@pytest.mark.parametrize("layer", ["conv1", "conv5", "features.15", "logits"])
def test_a_step_is_one_graph_with_the_three_ops(layer, options):
    plan = make_plan(cv.load_model("texturenet"), layer, configure(steps=3, size=48, batch=2, **options))
    (graph,) = captured_graphs(plan)
    called = Counter(str(node.target) for node in graph.graph.nodes)
    assert [called[f"cnnvis_fast.{name}.default"] for name in OPS] == [1] * len(OPS)


@pytest.mark.parametrize("layer", ["conv1", "conv5", "logits"])
def test_a_step_with_a_program_is_one_graph_too(layer):
    options = {"steps": 3, "size": 48, "batch": 2, "program": True, "compile": True}
    plan = make_plan(cv.load_model("texturenet"), layer, configure(**options))
    (graph,) = captured_graphs(plan)
    called = Counter(str(node.target) for node in graph.graph.nodes)
    assert [called[f"cnnvis_fast.{name}.default"] for name in OPS] == [1] * len(OPS)
    pools = 0 if layer == "conv1" else 2
    assert called["cnnvis_fast.max_pool.default"] == called["cnnvis_fast.max_pool_backward.default"] == pools


def test_a_program_with_segments_through_autograd_is_one_graph_too():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus(), torch.nn.Conv2d(4, 4, 3))
    network.cnnvis_source = Source("softplus", "none", (0.5,) * 3, (0.2,) * 3, 32)
    plan = make_plan(network, "2", configure(steps=3, size=32, batch=2, program=True, compile=True))
    assert plan.program.report().through_autograd == ["1"]
    assert len(captured_graphs(plan)) == 1


def test_a_sweep_over_many_plans_does_not_reach_the_recompile_limit():
    network = cv.load_model("texturenet")
    for size in range(32, 56, 2):
        plan = make_plan(network, "conv2", configure(steps=1, size=size, batch=1))
        assert len(captured_graphs(plan)) == 1


def test_compiled_pictures_score_like_plain_ones():
    # Different rounding leads to other pictures: the mean of one seed's eight changes by about a hundredth.
    def mean(use_compile):
        made = (
            cv.maximize("texturenet", "conv5", range(8), progress=False, compile=use_compile, seed=seed)
            for seed in range(4)
        )
        return sum(float(pictures.robust_scores.mean()) for pictures in made) / 4

    assert mean(True) == pytest.approx(mean(False), rel=0.01)


def test_a_compiled_program_finds_the_pictures_of_autograd():
    options = {"progress": False, "dtype": "float32", "steps": 8, "size": 48}
    plain = cv.maximize("texturenet", "conv3", range(4), **options)
    fused = cv.maximize("texturenet", "conv3", range(4), program=True, compile=True, **options)
    assert torch.allclose(fused.images, plain.images, atol=1e-3)


def test_a_network_that_cannot_be_traced_refuses_to_be_compiled():
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else self.conv(-x)

    with pytest.warns(UserWarning), pytest.raises(cv.InputError, match="cannot be traced"):
        cv.maximize(Branching(), "conv", size=16, compile=True, mean=(0, 0, 0), std=(1, 1, 1))
