"""A neuron has the same value and gradient in its receptive field as in the whole picture."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast.ascent.execution import picture_bytes
from cnnvis_fast.ascent.loop import gradient_function
from cnnvis_fast.ascent.plan import Plan, make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.networks.preprocessing import Source
from cnnvis_fast.objectives.folded import make_readout

CASES = [
    ("vgg11", "features.8", None),
    ("vgg11", "features.8", (0, 0)),
    ("vgg11", "features.9", (31, 30)),
    ("squeezenet1_1", "features.7.expand3x3", (3, 9)),
    ("squeezenet1_1", "features.7", None),
    ("resnet18", "layer2.0.conv1", (8, 15)),
    ("resnet18", "layer2", None),
    ("densenet121", "features.denseblock1", (5, 20)),
    ("googlenet", "inception3a", (9, 2)),
    ("mobilenet_v2", "features.4", (15, 1)),
]


INIT = {"googlenet": {"init_weights": False, "aux_logits": False}}


def planned(
    name: str, layer: str, position: tuple[int, int] | None, size: int = 128, saturation: float = 0.8
) -> Plan:
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None, **INIT.get(name, {})).eval()
    source = Source(name, "none", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), size)
    options = {"dtype": "float32", "device": "cpu", "batch": 2, "size": size, "saturation": saturation}
    return make_plan(network, layer, configure(objective="neuron", position=position, **options), source)


def gradients(plan: Plan, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the scores of channels 0 and 1 and their gradient, by autograd through the plan's trunk."""
    x = x.clone().requires_grad_()
    scores = plan.objective.scores(plan.trunk.module(plan.read(x)), *plan.objective.select([0, 1], x.device))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    return scores.detach(), gradient


@pytest.mark.parametrize(("name", "layer", "position"), CASES)
def test_the_window_gives_the_neurons_value_and_gradient(
    name: str, layer: str, position: tuple[int, int] | None
) -> None:
    plan = planned(name, layer, position)
    window = plan.window
    assert window is not None
    assert window.height * window.width < 0.8 * 128 * 128
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    found, slope = gradients(plan, x)
    with torch.no_grad():
        h = plan.trunk.module(x[:1])
    places = h.shape[2:] if plan.trunk.tail is None else plan.trunk.tail(h).shape[2:]
    place = position or tuple(n // 2 for n in places)
    full = make_readout("neuron", plan.trunk, place, x[:1], layer)
    x.requires_grad_()
    expected = full.scores(plan.trunk.module(x), *full.select([0, 1], x.device))
    (whole,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(slope, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[window.top : window.top + window.height, window.left : window.left + window.width] = False
    assert whole[..., outside].count_nonzero() == 0


def test_the_loops_gradient_is_the_same_with_the_window_and_without() -> None:
    plan = planned("vgg11", "features.8", (10, 3), size=96, saturation=0.0)
    assert plan.window is not None
    assert plan.program is not None or not plan.config.program
    p = plan.parameters.start(["a", "b"])
    selection = plan.objective.select([0, 1], plan.device)
    with torch.no_grad():
        dp, _, scores = gradient_function(plan, plan.module)(p, None, None, *selection)
    whole = torch.zeros(1, 3, 96, 96)
    full = make_readout("neuron", plan.trunk, (10, 3), whole, "features.8")
    z = plan.parameters.decode(p).requires_grad_()
    rgb = torch.einsum("ij,bjhw->bihw", plan.color, z).sigmoid()
    x = (rgb - plan.mean.view(-1, 1, 1)) / plan.std.view(-1, 1, 1)
    expected = full.scores(plan.trunk.module(x), *full.select([0, 1], plan.device))
    (dz,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-5)
    wanted = plan.parameters.adjoint(dz, p)
    assert float((dp - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("efficientnet_b0", "features.3"),
        ("vgg11", "features.18"),
        ("vit_b_16", "encoder.layers.encoder_layer_0"),
    ],
)
def test_what_sees_most_of_the_picture_runs_on_all_of_it(name: str, layer: str) -> None:
    size = 224 if name == "vit_b_16" else 64
    assert planned(name, layer, None, size).window is None


def test_channels_run_on_all_of_the_picture() -> None:
    network = cv.load_model("texturenet")
    assert make_plan(network, "conv1", configure(device="cpu")).window is None


def test_a_window_changes_no_bits_from_company_to_company() -> None:
    options = {"objective": "neuron", "steps": 6, "device": "cpu", "progress": False}
    together = cv.maximize("texturenet", "conv3", [0, 7, 11, 2, 5], **options)
    alone = cv.maximize("texturenet", "conv3", [11], **options)
    assert torch.equal(alone.images[0], together.images[2])
    assert torch.equal(alone.history[0], together.history[2])


def test_the_memory_of_a_picture_counts_all_of_it() -> None:
    plans = [planned("vgg11", "features.8", None, size) for size in (128, 256)]
    assert plans[0].window is not None
    taken = [picture_bytes(plan.trunk, plan.program, plan.example, plan.config) for plan in plans]
    assert taken[1] - taken[0] >= 4 * 4 * 3 * (256**2 - 128**2)  # parameters, moments, z at least


class Sneaky(nn.Module):
    """A network whose last convolution reads the whole picture, which its graph does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), Whole()
        self.third = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


class Whole(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + x.abs().amax((2, 3), keepdim=True)


def test_pictures_are_those_of_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"objective": "neuron", "steps": 6, "dtype": "float32", "device": "cpu", "progress": False}
    found = cv.maximize("texturenet", "conv3", [0, 7], **options)
    monkeypatch.setattr("cnnvis_fast.ascent.plan.in_window", lambda *given: (None, given[3]))
    expected = cv.maximize("texturenet", "conv3", [0, 7], **options)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found.robust_scores, expected.robust_scores, rtol=2e-2, atol=1e-3)
    assert (found.images - expected.images).abs().mean() < 0.01


def test_a_field_that_is_not_what_it_seems_is_told_and_the_whole_picture_runs() -> None:
    torch.manual_seed(0)
    source = Source("sneaky", "none", (0.5,) * 3, (0.5,) * 3, 32)
    config = configure(objective="neuron", device="cpu", dtype="float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = make_plan(Sneaky(), "third", config, source)
    assert plan.window is None
    assert any("does not depend on what its receptive field says" in str(w.message) for w in caught)
