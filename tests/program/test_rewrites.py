"""Every rewrite by itself: the same values, computed elsewhere, and only where nothing else reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from cnnvis_fast.program import rewrites

Rule = Callable[[fx.GraphModule], None]
BEHIND, INTO, ONTO, SUMS = (
    rewrites._behind_concatenations,
    rewrites._into_pools,
    rewrites._onto_concatenations,
    rewrites._onto_sums,
)


class Net(nn.Module):
    """A function of two tensors [N, 5, H, W] and the modules that it may call."""

    def __init__(self, body: Callable[[Any, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x[:, :5], x[:, 5:])


def rewritten(body: Callable[[Any, Tensor, Tensor], Any], *rules: Rule) -> list[Any]:
    """Returns what the rewritten graph calls, after checking equal results on numbers, infinities and nan."""
    net = Net(body)
    module = fx.symbolic_trace(net)
    for rule in rules:
        rule(module)
        module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    generator = torch.Generator().manual_seed(3)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.randn(3, 10, 9, 12, generator=generator)
        x.view(-1)[::37], x.view(-1)[::41], x.view(-1)[::43] = float("nan"), float("inf"), -float("inf")
        x = x.to(dtype)
        with torch.no_grad():
            expected, found = net(x.clone()), module(x.clone())
        assert found.dtype == dtype
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(0), expected.nan_to_num(0))
    return [node.target for node in module.graph.nodes if node.op not in ("placeholder", "output")]


def slices(calls: list[Any]) -> list[Any]:
    return [call for call in calls if getattr(call, "__name__", "") != "getitem"]


def test_rectifiers_move_behind_a_concatenation() -> None:
    calls = rewritten(lambda m, a, b: torch.cat([m.relu(a), functional.relu(b)], 1), BEHIND)
    assert slices(calls) == [torch.cat, torch.relu]


@pytest.mark.parametrize(
    "body",
    [
        lambda m, a, b: torch.cat([m.relu(a), b], 1),
        lambda m, a, b: torch.cat([m.relu(a), m.relu(b)], 0),
        lambda m, a, b: torch.cat([r := m.relu(a), m.relu(b)], 1) + torch.cat([r, b], 1),
        lambda m, a, b: torch.cat([m.relu(a)], 1),
    ],
    ids=["one part bare", "of pictures", "a part read elsewhere", "one part"],
)
def test_rectifiers_stay_where_they_do_more_than_that(body: Any) -> None:
    assert torch.relu not in rewritten(body, BEHIND)


@pytest.mark.parametrize(
    "body",
    [
        lambda m, a, _: m.pool(m.relu(a)),
        lambda m, a, _: functional.max_pool2d(torch.relu(a), 2),
        lambda m, a, _: torch.max_pool2d(a.relu(), (3, 2), stride=(2, 1), padding=1),
        lambda m, a, _: functional.max_pool2d(functional.relu(a), 3, 1, dilation=2),
    ],
    ids=["modules", "functions", "keywords", "dilated"],
)
def test_a_rectifier_moves_behind_a_max_pooling(body: Any) -> None:
    assert slices(rewritten(body, INTO)) == [rewrites.rectified_max_pool]


def test_the_parts_of_a_concatenation_are_pooled_one_by_one() -> None:
    calls = rewritten(lambda m, a, b: m.pool(m.relu(torch.cat([a, b], 1))), INTO)
    assert slices(calls) == [rewrites.rectified_max_pool, rewrites.rectified_max_pool, torch.cat]


@pytest.mark.parametrize(
    "body",
    [
        lambda m, a, _: m.pool(a),
        lambda m, a, _: m.pool(r := m.relu(a)) + r.mean(),
        lambda m, a, _: functional.avg_pool2d(m.relu(a), 2),
        lambda m, a, _: functional.max_pool2d(m.relu(a), 2, return_indices=True)[0],
    ],
    ids=["no rectifier", "read elsewhere", "of means", "places asked for"],
)
def test_a_pooling_stays_where_its_rectifier_must(body: Any) -> None:
    assert rewrites.rectified_max_pool not in rewritten(body, INTO)


def test_a_concatenation_is_rectified_as_it_is_written() -> None:
    calls = rewritten(lambda m, a, b: m.relu(torch.cat((a, b), dim=1)), ONTO)
    assert slices(calls) == [rewrites.rectified_concatenation]


@pytest.mark.parametrize(
    "body", [lambda m, a, b: m.relu(a + b), lambda m, a, b: torch.relu(torch.add(a, b))], ids=["+", "add"]
)
def test_a_sum_is_rectified_as_it_is_written(body: Any) -> None:
    assert slices(rewritten(body, SUMS)) == [rewrites.rectified_sum]


@pytest.mark.parametrize(
    "body",
    [
        lambda m, a, b: m.relu(torch.add(a, b, alpha=2)),
        lambda m, a, b: m.relu(a + 1),
        lambda m, a, b: m.relu(s := a + b) * s,
        lambda m, a, b: m.relu(torch.cat([a, b], 0)),
        lambda m, a, b: m.relu(c := torch.cat([a, b], 1)) - c,
    ],
    ids=["weighed", "a number", "sum read elsewhere", "of pictures", "concatenation read elsewhere"],
)
def test_what_somebody_else_reads_is_not_rectified(body: Any) -> None:
    calls = rewritten(body, ONTO, SUMS)
    assert not {rewrites.rectified_sum, rewrites.rectified_concatenation} & {*slices(calls)}


def test_all_together_leave_one_rectifier_per_part() -> None:
    net = Net(lambda m, a, b: m.pool(torch.cat([m.relu(a), m.relu(b)], 1)))
    module = fx.symbolic_trace(net)
    rewrites.rewrite(module)
    x = torch.randn(2, 10, 7, 7)
    assert torch.equal(module(x), net(x))
    calls = [node.target for node in module.graph.nodes if node.op == "call_function"]
    assert slices(calls) == [rewrites.rectified_max_pool, rewrites.rectified_max_pool, torch.cat]
