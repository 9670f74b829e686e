"""A folded objective has the value and gradient of the plain forward pass's mean, for any convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.trunk import Trunk
from cnnvis_fast.objectives.folded import Folded, Selected, convolution_map, make_readout

CPU = torch.device("cpu")
RELATIVE = 1e-5


@dataclass
class Case:
    """A convolution, or a linear layer, on the output of a small random trunk."""

    tail: nn.Conv2d | nn.Linear
    trunk: nn.Module
    x: Tensor
    filters: list[int]
    position: tuple[int, int] | None = None


@st.composite
def convolution_cases(draw: st.DrawFn) -> Case:
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, dilation, stride = pair(1, 4), pair(1, 3), pair(1, 4)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding: Any = draw(st.sampled_from(["same", "valid", "one number", "two numbers"]))
    if padding == "same":
        stride, zeros = (1, 1), [span - 1 for span in spans]
    elif padding == "valid":
        zeros = [0, 0]
    else:
        pads = pair(0, 4)
        padding = pads[0] if padding == "one number" else pads
        zeros = [2 * pads[0]] * 2 if isinstance(padding, int) else [2 * pad for pad in pads]
    # From the smallest input with one output position on: below that the convolution itself refuses.
    height, width = (
        max(1, span - zero) + draw(st.integers(0, 9)) for span, zero in zip(spans, zeros, strict=True)
    )
    bias, batch = draw(st.booleans()), draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 2**32)))
    tail = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    filters = [draw(st.integers(0, outputs - 1)) for _ in range(batch)]
    position = None
    if draw(st.booleans()):
        rows, columns = tail(torch.zeros(1, inputs, height, width)).shape[2:]
        position = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    note(f"{tail}, input {height} x {width}, filters {filters}, position {position}")
    return Case(tail, small_trunk(inputs), torch.randn(batch, 3, height, width), filters, position)


def small_trunk(outputs: int) -> nn.Module:
    # Smooth, so that rounding cannot switch a unit on in one computation and off in the other.
    return nn.Sequential(nn.Conv2d(3, outputs, 3, padding=1), nn.SiLU())


def plain_scores(case: Case, h: Tensor) -> Tensor:
    """Computes the objective by its definition: runs the layer, picks the channels, averages."""
    output = case.tail(h)
    chosen = torch.stack([output[k, channel] for k, channel in enumerate(case.filters)])
    if case.position is not None:
        return chosen[:, case.position[0], case.position[1]]
    return chosen if chosen.ndim == 1 else chosen.mean((1, 2))


def gradients(
    case: Case, scores: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns scores, and the gradients of their sum with respect to h and to the picture."""
    x = case.x.detach().to(dtype).requires_grad_()
    h = case.trunk.to(dtype)(x)
    found = scores(h)
    return found.detach(), *torch.autograd.grad(found.sum(), (h, x))


def assert_folded_is_plain(case: Case) -> None:
    objective = Folded(case.tail, case.trunk(case.x).shape[1:], case.position)
    selection = objective.select(case.filters, CPU)
    found = gradients(case, lambda h: objective.scores(h, *selection), torch.float32)
    case.tail.double()
    expected = gradients(case, lambda h: plain_scores(case, h), torch.float64)
    # A mean of signed numbers may cancel, so the value's error is measured by the terms of the sum.
    with torch.no_grad():
        maps, offset = (t.double() for t in selection)
        h = case.trunk(case.x.double())
        terms = (h * maps).abs().flatten(1).sum(1) + offset.abs()
    assert found[0].dtype == torch.float32
    assert ((found[0] - expected[0]).abs() <= RELATIVE * terms).all()
    for name, one, other in zip(("h", "x"), found[1:], expected[1:], strict=True):
        for k in range(len(one)):
            error = (one[k] - other[k]).abs().max()
            assert error <= RELATIVE * other[k].abs().max() + 1e-12, f"gradient of {name}, picture {k}"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(convolution_cases())
def test_a_folded_convolution_is_its_plain_mean(case: Case) -> None:
    assert_folded_is_plain(case)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_folded_linear_layer_is_its_plain_output(batch: int, bias: bool) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(small_trunk(4), nn.Flatten())
    tail = nn.Linear(4 * 5 * 7, 6, bias=bias)
    assert_folded_is_plain(Case(tail, trunk, torch.randn(batch, 3, 5, 7), [5, 0, 5, 2][:batch]))


def test_stride_2_reaches_an_input_of_even_size() -> None:
    # A plain transposed convolution gives 55 for 56; the last row and column have gradient zero, not none.
    tail = nn.Conv2d(1, 1, 1, stride=2)
    nn.init.ones_(tail.weight)
    found = convolution_map(tail, 0, (1, 56, 56))
    expected = torch.zeros(56, 56, dtype=torch.float64)
    expected[::2, ::2] = 1 / 28**2
    assert torch.equal(found[0], expected)


def test_a_filter_reads_its_own_group_alone() -> None:
    tail = nn.Conv2d(6, 4, 3, groups=2)
    assert convolution_map(tail, 1, (6, 5, 5)).abs().amax((1, 2)).gt(0).tolist() == [True] * 3 + [False] * 3
    assert convolution_map(tail, 2, (6, 5, 5)).abs().amax((1, 2)).gt(0).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("tail", "shape"),
    [(nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2), (6, 9, 8)), (nn.Linear(10, 8), (10,))],
    ids=["convolution", "linear"],
)
def test_the_bits_of_a_map_do_not_depend_on_the_other_filters(
    tail: nn.Conv2d | nn.Linear, shape: tuple[int, ...]
) -> None:
    objective = Folded(tail, shape, None)
    maps, offset = objective.select(range(8), CPU)
    assert maps.dtype == offset.dtype == torch.float32
    for filters in ([3], [3, 3], [7, 3, 0]):
        some, some_offset = objective.select(filters, CPU)
        assert torch.equal(some, maps[filters])
        assert torch.equal(some_offset, offset[filters])


def test_the_bits_of_a_score_do_not_depend_on_the_slot() -> None:
    torch.manual_seed(0)
    tail = nn.Conv2d(16, 8, 3, padding=1)
    objective = Folded(tail, (16, 24, 24), None)
    h = torch.randn(5, 16, 24, 24).contiguous(memory_format=torch.channels_last)
    scores = objective.scores(h, *objective.select(range(5), CPU))
    for filters in ([4], [4, 0, 1, 2, 3]):
        some = h[filters].contiguous(memory_format=torch.channels_last)
        assert torch.equal(objective.scores(some, *objective.select(filters, CPU)), scores[filters])


def test_scores_of_bfloat16_maps_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    tail = nn.Conv2d(8, 4, 3)
    objective = Folded(tail, (8, 9, 9), None)
    h = torch.randn(3, 8, 9, 9).bfloat16()
    scores = objective.scores(h, *objective.select([0, 1, 2], CPU))
    expected = plain_scores(Case(tail.double(), nn.Identity(), h, [0, 1, 2]), h.double())
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-6)


def objective_of(module: nn.Module, shape: tuple[int, ...], kind: str = "channel", **rest: Any) -> Any:
    """Makes the readout of a target that stays whole, on maps or vectors of this shape."""
    return make_readout(
        kind, Trunk(module, None, True), rest.get("position"), torch.zeros(1, *shape), "t", module
    )


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(3, 2), nn.BatchNorm2d(4).eval(), nn.PReLU(4)],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize("position", [None, (1, 2)])
def test_other_targets_average_the_chosen_channel(
    module: nn.Module, position: tuple[int, int] | None
) -> None:
    torch.manual_seed(0)
    kind = "neuron" if position else "channel"
    objective = objective_of(module, (4, 9, 8), kind, position=position)
    x, filters = torch.randn(3, 4, 9, 8), [3, 0, 3]
    output = module(x)
    chosen = torch.stack([output[k, channel] for k, channel in enumerate(filters)])
    expected = chosen[:, 1, 2] if position else chosen.flatten(1).mean(1)
    assert isinstance(objective, Selected)
    assert objective.channels == 4
    selection = objective.select(filters, CPU)
    torch.testing.assert_close(objective.scores(output, *selection), expected, rtol=1e-6, atol=1e-6)
    assert objective.scores(output.bfloat16(), *selection).dtype == torch.float32


@pytest.mark.parametrize("kind", ["channel", "neuron", "logit"])
def test_a_vector_gives_its_own_number_whatever_the_kind(kind: str) -> None:
    objective = objective_of(nn.Flatten(), (7, 1, 1), kind)
    output = torch.randn(3, 7)
    assert torch.equal(
        objective.scores(output, *objective.select([6, 0, 2], CPU)), output[range(3), [6, 0, 2]]
    )


def test_the_score_of_a_chosen_channel_has_no_gradient_elsewhere() -> None:
    objective = objective_of(nn.ReLU(), (4, 5, 5))
    h = torch.randn(2, 4, 5, 5, requires_grad=True)
    objective.scores(h, *objective.select([1, 3], CPU)).sum().backward()
    expected = torch.zeros(2, 4, 5, 5)
    expected[0, 1] = expected[1, 3] = 1 / 25
    torch.testing.assert_close(h.grad, expected)


@pytest.mark.parametrize("tail", [nn.Conv2d(3, 5, 3, stride=2), None], ids=["folded", "selected"])
def test_a_neuron_is_the_center_unless_a_position_is_given(tail: nn.Conv2d | None) -> None:
    module = nn.Conv2d(3, 5, 3, stride=2)
    trunk = Trunk(nn.Identity() if tail else module, tail, True)
    example = torch.zeros(1, 3, 11, 17)  # gives 5 x 8
    assert make_readout("neuron", trunk, None, example, "t", module).position == (2, 4)
    assert make_readout("neuron", trunk, (0, 7), example, "t", module).position == (0, 7)
    assert make_readout("channel", trunk, None, example, "t", module).position is None
    for outside in ((5, 0), (0, 8), (-1, 0)):
        with pytest.raises(InputError, match="`position` must lie in the 5 x 8 output of t"):
            make_readout("neuron", trunk, outside, example, "t", module)


def test_a_logit_needs_a_vector() -> None:
    with pytest.raises(InputError, match="logits"):
        objective_of(nn.ReLU(), (4, 5, 5), "logit")


def test_a_linear_tail_is_folded_and_others_are_not() -> None:
    example = torch.zeros(1, 3, 8, 8)
    tails = nn.Conv2d(3, 5, 3), nn.Linear(3 * 64, 5)
    for tail, trunk in zip(tails, (nn.Identity(), nn.Flatten()), strict=True):
        objective = make_readout("channel", Trunk(trunk, tail, True), None, example, "t")
        assert isinstance(objective, Folded)
        assert objective.channels == 5
