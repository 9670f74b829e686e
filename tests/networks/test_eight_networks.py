"""Eight real networks, cut at each of their targets, against their own plain forward pass."""

from __future__ import annotations

import copy
import functools
import warnings
from dataclasses import dataclass

import pytest
import torch
from support.networks import NETWORKS, SIZE, batch_norms, outputs_at, pictures, random_network
from torch import Tensor, fx, nn

from cnnvis_fast import layers
from cnnvis_fast.networks.channels import channel_axis, channels_second
from cnnvis_fast.networks.trunk import Trunk, cut
from cnnvis_fast.objectives.folded import make_readout

TOLERANCE = 1e-5  # of the largest value that the plain network has at the target

# BatchNorms in all, and those that no convolution feeds: DenseNet's after a pooling or a concatenation.
BATCH_NORMS = {
    "resnet18": (20, 0),
    "mobilenet_v2": (52, 0),
    "efficientnet_b0": (49, 0),
    "densenet121": (121, 62),
    "googlenet": (57, 0),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Subject:
    """A network with random weights, two pictures, and what it computes from them at each target."""

    name: str
    model: nn.Module
    x: Tensor
    outputs: dict[str, Tensor]

    @functools.cached_property
    def whole(self) -> Trunk:
        """Nothing is cut off from it but the last layer."""
        return self.cut("logits")

    def cut(self, layer: str) -> Trunk:
        """Cuts without a warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trunk = cut(self.model, layer, self.x[:1])
        assert trunk.traced
        return trunk


@pytest.fixture(scope="module", params=NETWORKS)
def subject(request: pytest.FixtureRequest) -> Subject:
    generator = torch.Generator().manual_seed(0)
    model = random_network(request.param, generator)
    x = pictures(2, generator)
    targets = [layer.name for layer in layers(model, size=SIZE)]
    return Subject(request.param, model, x, outputs_at(targets, model, x))


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def foldable(trunk: Trunk) -> list[str]:
    """The BatchNorms left in a trunk which alone read a convolution."""
    assert isinstance(trunk.module, fx.GraphModule)
    modules = dict(trunk.module.named_modules())
    nodes = [node for node in trunk.module.graph.nodes if node.op == "call_module"]
    return [
        node.target
        for node in nodes
        if isinstance(modules[node.target], nn.BatchNorm2d)
        and isinstance(modules.get(node.args[0].target), nn.Conv2d)
        and len(node.args[0].users) == 1
    ]


def test_every_target_depends_on_the_picture(subject: Subject) -> None:
    for layer, output in subject.outputs.items():
        scale = float(output.abs().max())
        assert 0.1 < scale < 1000, (layer, scale)
        assert output.std() > 0.01 * scale, layer
        assert (output[0] - output[1]).abs().max() > 0.01 * scale, layer


@pytest.mark.slow
def test_float32_itself_settles_every_target_twice_as_precisely_as_asked(subject: Subject) -> None:
    wide = copy.deepcopy(subject.model).double()
    exact = outputs_at(list(subject.outputs), wide, subject.x.double())
    errors = {layer: relative(output, exact[layer]) for layer, output in subject.outputs.items()}
    assert not {layer: error for layer, error in errors.items() if not error < TOLERANCE / 2}


@pytest.mark.parametrize("every", [50, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_the_cut_network_and_the_folded_objective_give_what_the_plain_one_does(
    subject: Subject, every: int
) -> None:
    targets, modules = list(subject.outputs), dict(subject.model.named_modules())
    errors: dict[tuple[str, str | int], float] = {}
    for layer in dict.fromkeys([*targets[::every], targets[-1]]):
        trunk, plain = subject.cut(layer), subject.outputs[layer]
        assert not foldable(trunk), layer
        if isinstance(modules.get(layer), nn.Conv2d | nn.Linear):
            assert trunk.tail is not None, layer
        h = trunk.module(subject.x.clone())
        errors[layer, "output"] = relative(h if trunk.tail is None else trunk.tail(h), plain)
        objective = make_readout("channel", trunk, None, subject.x[:1], layer, modules.get(layer))
        axis = channel_axis(plain.shape, modules.get(layer))
        assert axis is not None
        plain = channels_second(plain, axis)
        for channel in {0, plain.shape[1] // 2, plain.shape[1] - 1}:
            scores = objective.scores(h, *objective.select([channel] * 2, torch.device("cpu")))
            expected = plain[:, channel].reshape(2, -1).mean(1)
            errors[layer, channel] = float((scores - expected).abs().max() / plain.abs().max())
    # Written so that a NaN is too large as well.
    assert not {place: error for place, error in errors.items() if not error <= TOLERANCE}


def test_only_batch_norms_that_no_convolution_feeds_are_left(subject: Subject) -> None:
    left = batch_norms(subject.whole.module)
    assert (len(batch_norms(subject.model)), len(left)) == BATCH_NORMS.get(subject.name, (0, 0))


def test_a_fold_whose_bias_is_a_hundredth_off_is_seen(subject: Subject) -> None:
    trunk, modules = subject.whole, dict(subject.model.named_modules())

    def error() -> float:
        h = trunk.module(subject.x.clone())
        return relative(h if trunk.tail is None else trunk.tail(h), subject.outputs["logits"])

    folded = [
        module
        for name, module in trunk.module.named_modules()
        if isinstance(module, nn.Conv2d) and not torch.equal(module.weight, modules[name].weight)
    ]
    total, left = BATCH_NORMS.get(subject.name, (0, 0))
    assert len(folded) == total - left
    for convolution in folded:
        assert convolution.bias is not None
        right = convolution.bias.clone()
        convolution.bias *= 1.01
        assert error() > 10 * TOLERANCE
        convolution.bias.copy_(right)
    assert error() <= TOLERANCE
