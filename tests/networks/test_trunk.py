"""The cut network computes what the whole one does at the target, and nothing beyond it."""

from __future__ import annotations

import copy

import pytest
import torch
from support.trunks import (
    SIZE,
    Deciding,
    Network,
    assert_same_output,
    hooked,
    output_of,
    pictures,
    randomized,
    traced,
)
from torch import Tensor, nn

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.trunk import cut, to_device

LAYERS = [name for name, _ in Network().named_modules() if name] + ["logits"]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_cut_network_computes_what_the_whole_one_does(layer: str) -> None:
    model = randomized(Network())
    assert_same_output(model, layer, traced(model, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_is_that_of_the_whole_network(layer: str) -> None:
    model, x = randomized(Network()), pictures().requires_grad_()
    output = hooked(model, layer, x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((output * weights).sum(), x)
    trunk = traced(model, layer)
    found = torch.func.grad(lambda x: (output_of(trunk, x) * weights).sum())(x.detach())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_users_network_stays_as_it_was(layer: str) -> None:
    model = randomized(Network()).train()
    model.block.eval()
    before = copy.deepcopy(model)
    cut(model, layer, pictures(1))
    assert all(torch.equal(t, before.state_dict()[name]) for name, t in model.state_dict().items())
    for (name, module), (other, old) in zip(model.named_modules(), before.named_modules(), strict=True):
        assert (name, type(module), module.training) == (other, type(old), old.training)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_picture_that_it_was_tried_on_stays_as_it_was() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2).add_(1)
            return self.conv(x)

    model, example = randomized(InPlace()), pictures(1)
    trunk = cut(model, "conv", example)
    assert torch.equal(example, pictures(1))
    assert_same_output(model, "conv", trunk)


def test_the_trunk_is_frozen_and_ready_to_run() -> None:
    trunk = traced(randomized(Network()).train().double(), "branches")
    # Leaves alone: tracing makes new containers, and those compute nothing.
    assert not any(m.training for m in trunk.module.modules() if not list(m.children()))
    assert all(t.dtype == torch.float32 and not t.requires_grad for t in trunk.module.parameters())
    assert_same_output(randomized(Network()), "branches", trunk)


@pytest.mark.parametrize("layer", ["stem.0", "block.conv2", "depthwise", "head"])
def test_a_linear_target_is_the_tail_and_not_in_the_trunk(layer: str) -> None:
    model = randomized(Network())
    trunk = traced(model, layer)
    target = model.get_submodule(layer)
    assert trunk.tail is not None
    assert torch.equal(trunk.tail.weight, target.weight)
    assert layer not in dict(trunk.module.named_modules())


def test_logits_are_the_tail_where_the_network_ends_in_a_linear_layer() -> None:
    assert isinstance(traced(randomized(Network()), "logits").tail, nn.Linear)


@pytest.mark.parametrize("layer", ["stem.2", "block", "branches", "norm", "pool", "dropout"])
def test_a_target_that_is_not_linear_has_no_tail(layer: str) -> None:
    assert traced(randomized(Network()), layer).tail is None


def test_what_is_asserted_behind_a_target_does_not_run() -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(self.conv(x).relu())
            torch._assert(y.dim() == 4, "maps")
            return y

    trunk = traced(Checked(), "conv")
    assert not list(trunk.module.named_children())


def test_a_target_whose_inside_cannot_be_traced_stays_in_one_piece() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Branching())
    trunk = traced(model, "1")
    assert [name for name, _ in trunk.module.named_children()] == ["0", "1"]
    assert_same_output(model, "1", trunk)


class Ending(nn.Module):
    """A target, and after it a convolution that cannot run: it expects a thousand channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.target = nn.Conv2d(4, 5, 3)
        self.later = nn.Conv2d(1000, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.later(torch.relu(self.target(torch.relu(self.conv(x)))))


@pytest.mark.parametrize("layer", ["conv", "target"])
def test_nothing_after_the_target_remains(layer: str) -> None:
    model = randomized(Ending())
    with pytest.raises(RuntimeError):
        model(pictures(1))
    trunk = traced(model, layer)
    names = dict(trunk.module.named_modules())
    assert "later" not in names
    assert ("conv" in names) == (layer == "target")
    output_of(trunk, pictures())


@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_a_network_that_cannot_be_traced_runs_whole_with_a_hook_and_says_so(bias: float) -> None:
    model = randomized(Deciding())
    model.stem.bias.data.fill_(bias)
    with pytest.warns(UserWarning, match=r"Deciding cannot be cut at target \(.*\).*hook"):
        trunk = cut(model, "target", pictures(1))
    assert not trunk.traced
    assert trunk.tail is None
    x = pictures().requires_grad_()
    h = model.stem(x)
    expected = model.target(h * 2 if bias > 0 else h - 1)
    found = trunk.module(x.detach())
    torch.testing.assert_close(found, expected.detach())
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    assert gradient.any()
    torch.testing.assert_close(torch.func.grad(lambda x: trunk.module(x).sum())(x.detach()), gradient)
    # The hook is there while the network runs and not a moment longer.
    assert not any(module._forward_hooks for module in trunk.module.modules())


def test_the_side_effect_of_an_in_place_activation_is_kept() -> None:
    class Forgetful(nn.Module):
        """Relies on the side effect of an in-place module, whose result nothing reads in the graph."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.last = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            self.relu(x)
            return self.last(x)

    model = randomized(Forgetful())
    trunk = cut(model, "last", pictures(1))
    assert trunk.traced
    assert_same_output(model, "last", trunk)


def test_a_graph_that_differs_from_its_network_is_not_used() -> None:
    class Negating(nn.Module):
        """Relies on the side effect of a method, whose result nothing reads in the graph."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x.mul_(-2)
            return self.last(x)

    model = randomized(Negating())
    with pytest.warns(UserWarning, match="differs"):
        trunk = cut(model, "last", pictures(1))
    assert not trunk.traced
    assert_same_output(model, "last", trunk)


def test_a_target_of_five_dimensions_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2))
    with pytest.raises(InputError, match=r"yields a tensor of shape \[1, 2, 2, \d+, \d+\]"):
        cut(model, "1", pictures(1))


def test_a_linear_layer_on_tokens_is_a_tail() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear((SIZE - 2) ** 2, 5)))
    assert traced(model, "1").tail is None
    assert isinstance(traced(model, "2").tail, nn.Linear)


def test_several_targets_are_yielded_together_whatever_runs_in_place() -> None:
    model = randomized(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU())
    )
    x = pictures(2)
    trunk = cut(model, ["2", "0"], x[:1])
    assert trunk.traced
    assert trunk.tail is None
    deep, shallow = trunk.module(x.clone())
    torch.testing.assert_close(shallow, model[0](x))
    torch.testing.assert_close(deep, model[2](model[0](x).relu()))
    assert shallow.min() < 0


def test_a_target_that_yields_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(InputError, match="yields a tuple"):
        cut(nn.Sequential(nn.Conv2d(3, 4, 3), Pair()), "1", pictures(1))


def test_a_target_that_does_not_run_is_refused() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(InputError, match="'unused' does not run"):
        cut(Skips(), "unused", pictures(1))


def test_a_picture_that_is_too_small_is_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"does not run on a 3 x 2 x 2 picture up to 0 .*another size"):
        cut(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", pictures(1, size=2))


def test_a_copy_for_the_device_leaves_the_trunk_in_float32() -> None:
    trunk = traced(randomized(Network()), "branches")
    before = {name: t.clone() for name, t in trunk.module.state_dict().items()}
    module = to_device(trunk, torch.bfloat16, torch.device("cpu"))
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in module.parameters() if p.ndim == 4)
    after = trunk.module.state_dict()
    assert all(after[name].dtype == t.dtype and torch.equal(after[name], t) for name, t in before.items())
    expected = trunk.module(pictures())
    found = module(pictures().bfloat16().contiguous(memory_format=torch.channels_last))
    assert (found - expected).abs().max() <= 0.03 * expected.abs().max()


def test_a_module_with_two_names_can_be_cut_at_either() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)))
    model.add_module("other", model[1])
    assert_same_output(model, "1", traced(model, "1"))
    assert_same_output(model, "other", traced(model, "other"))
