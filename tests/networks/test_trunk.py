"""The cut network computes what the whole one does at the target, and nothing beyond it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnvis_fast.ascent.redirected_relu import redirected
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.trunk import Trunk, cut, to_device

SIZE = 13


class Residual(nn.Module):
    """conv -> BatchNorm -> in-place ReLU -> conv -> BatchNorm, plus its input."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        # One ReLU used twice, as in torchvision's ResNet.
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Branches(nn.Module):
    """Two branches of different kernels, concatenated; a ReLU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(6, 4, 1)
        self.wide = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((functional.relu(self.narrow(x)), functional.relu(self.wide(x), inplace=True)), 1)


class Network(nn.Module):
    """A little of everything that real networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.block = Residual()
        self.branches = Branches()
        self.norm = nn.BatchNorm2d(9)  # after a concatenation: there is no convolution to fold it into
        self.depthwise = nn.Conv2d(9, 18, 3, groups=9, padding="same")
        self.depthwise_norm = nn.BatchNorm2d(18)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout()
        self.head = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.branches(self.block(self.stem(x)))
        x = self.depthwise_norm(self.depthwise(torch.relu(self.norm(x)))).relu()
        x = self.dropout(self.pool(x).mean((2, 3)))
        return self.head(x)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics as if trained: folding fresh BatchNorms, the identity, would test nothing."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(t: Tensor, low: float, high: float) -> None:
        t.data.copy_(low + (high - low) * torch.rand(t.shape, generator=generator))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.2, 2)
            uniform(module.weight, -0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            uniform(module.weight, -1, 1)
            module.weight.data *= (3 / module.weight[0].numel()) ** 0.5
            if module.bias is not None:
                uniform(module.bias, -0.5, 0.5)
    return model


def pictures(batch: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def hooked(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What the whole network computes at its layer, the first time that it runs."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        # Cloned, because an in-place ReLU overwrites what the hook is shown.
        outputs.append(output.clone())

    network = copy.deepcopy(model).eval()
    if layer != "logits":
        network.get_submodule(layer).register_forward_hook(keep)
    outputs.append(network(x.clone()))
    return outputs[0]


def output_of(trunk: Trunk, x: Tensor) -> Tensor:
    h = trunk.module(x.clone())
    return h if trunk.tail is None else trunk.tail(h)


def traced(model: nn.Module, layer: str) -> Trunk:
    """Cuts without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trunk = cut(model, layer, pictures(1))
    assert trunk.traced
    return trunk


def assert_same_output(model: nn.Module, layer: str, trunk: Trunk) -> None:
    x = pictures()
    with torch.no_grad():
        expected, found = hooked(model, layer, x), output_of(trunk, x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


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


@pytest.mark.parametrize(("layer", "convolution"), [("stem.1", "stem.0"), ("block.bn2", "block.conv2")])
def test_a_batch_norm_as_target_is_the_tail_together_with_its_convolution(
    layer: str, convolution: str
) -> None:
    model = randomized(Network())
    trunk = traced(model, layer)
    assert isinstance(trunk.tail, nn.Conv2d)
    assert not torch.equal(trunk.tail.weight, model.get_submodule(convolution).weight)
    assert convolution not in dict(trunk.module.named_modules())


def test_logits_are_the_tail_where_the_network_ends_in_a_linear_layer() -> None:
    assert isinstance(traced(randomized(Network()), "logits").tail, nn.Linear)


@pytest.mark.parametrize("layer", ["stem.2", "block", "branches", "norm", "pool", "dropout"])
def test_a_target_that_is_not_linear_has_no_tail(layer: str) -> None:
    assert traced(randomized(Network()), layer).tail is None


def test_batch_norms_are_folded_where_a_convolution_feeds_them_alone() -> None:
    norms = [
        m for m in traced(randomized(Network()), "pool").module.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    assert [norm.num_features for norm in norms] == [9]


def test_batch_norms_inside_a_target_are_folded_too() -> None:
    trunk = traced(randomized(Network()), "block")
    assert not [m for m in trunk.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert_same_output(randomized(Network()), "block", trunk)


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


def test_a_batch_norm_stays_where_something_else_reads_its_convolution() -> None:
    class Peek(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.last(self.bn(x) * x.sigmoid())

    model = randomized(Peek())
    trunk = traced(model, "last")
    assert any(isinstance(module, nn.BatchNorm2d) for module in trunk.module.modules())
    assert_same_output(model, "last", trunk)


@pytest.mark.parametrize("layer", ["bn1", "bn2", "last"])
def test_a_convolution_that_runs_twice_keeps_both_batch_norms(layer: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.bn1, self.bn2, self.last = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.bn2(self.conv(torch.relu(self.bn1(self.conv(x))))))

    model = randomized(Twice())
    assert_same_output(model, layer, traced(model, layer))


def test_a_batch_norm_without_affine_parameters_is_folded_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    model[1].running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr, operator]
    model[1].running_var.uniform_(0.2, 2)  # type: ignore[union-attr, operator]
    trunk = traced(model, "2")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.module.modules())
    assert_same_output(model, "2", trunk)


def test_a_batch_norm_that_normalizes_by_the_batch_stays_so() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    model.insert(1, nn.BatchNorm2d(4, track_running_stats=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk = cut(model, "3", pictures(1))
    assert_same_output(model, "3", trunk)


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


@pytest.mark.parametrize("layer", ["conv", "relu", "bn"])
def test_a_padded_convolution_with_other_values_than_zeros_is_not_folded(layer: str) -> None:
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 4, 3))
    model.add_module("conv", nn.Conv2d(4, 5, 3, padding=2, padding_mode="reflect"))
    model.add_module("bn", nn.BatchNorm2d(5))
    model.add_module("relu", nn.ReLU())
    trunk = traced(randomized(model), layer)
    assert trunk.tail is None
    assert_same_output(model, layer, trunk)


class Deciding(nn.Module):
    """Takes one of two ways, depending on the picture: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.target = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.later = nn.ReLU(inplace=True), nn.Conv2d(1000, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * 2 if x.mean() > 0 else x - 1
        return self.later(self.relu(self.target(x)))


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


class Functional(nn.Module):
    """One way to write a ReLU that is no module."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.last, self.rectify = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), rectify

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rectify(self.conv(x)))


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "functional.relu": functional.relu,
    "functional.relu in place": lambda x: functional.relu(x, inplace=True),
    "functional.relu6": functional.relu6,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "x.relu()": lambda x: x.relu(),
    "x.relu_()": lambda x: x.relu_(),
}


@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0], ids=["off", "both", "on"])
def test_redirected_computes_the_same_and_has_a_gradient_where_all_is_off(
    rectify: Callable[[Tensor], Tensor], bias: float
) -> None:
    model = randomized(Functional(rectify))
    model.conv.bias.data.fill_(bias)
    plain = traced(model, "last").module
    copied = redirected(plain)
    x = pictures()
    assert torch.equal(copied(x.clone()), plain(x.clone()))
    gradients = [torch.func.grad(lambda x, m=m: m(x).sum())(x) for m in (plain, copied)]
    if bias < 0:
        assert not gradients[0].any()
        # A picture without gradient would stay where it is.
        assert gradients[1].flatten(1).any(1).all()
    if bias == 0:
        assert not torch.equal(*gradients)
        assert not torch.equal(plain(x), plain(x + 1))


def test_redirected_leaves_the_trunk_as_it_was() -> None:
    model = randomized(Functional(functional.relu))
    model.conv.bias.data.fill_(-100)
    plain = traced(model, "last").module
    redirected(plain)
    assert not torch.func.grad(lambda x: plain(x).sum())(pictures()).any()


@pytest.mark.parametrize("layer", ["1", "2"], ids=["inside the target", "below the target"])
def test_redirected_reaches_both_uses_of_one_relu(layer: str) -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 6, 3), Residual(), nn.Conv2d(6, 2, 3)))
    for norm in (model.get_submodule("1.bn1"), model.get_submodule("1.bn2")):
        nn.init.constant_(norm.bias, -100.0)
    leaky = copy.deepcopy(model)
    leaky.set_submodule("1.relu", nn.LeakyReLU(0.1))
    smooth, plain, x = traced(leaky, layer), traced(model, layer), pictures()
    copied = Trunk(redirected(plain.module), plain.tail, traced=True)
    assert torch.equal(output_of(copied, x), output_of(plain, x))
    by_trunk = [torch.func.grad(lambda x, t=t: output_of(t, x).sum())(x) for t in (plain, copied, smooth)]
    assert not by_trunk[0].any()
    # With all units off, a share of the gradient at each is what a leaky ReLU of that slope has.
    torch.testing.assert_close(by_trunk[1], by_trunk[2])


def test_redirected_works_on_a_network_with_a_hook() -> None:
    model = randomized(Deciding())
    model.stem.bias.data.fill_(-5)
    model.target.bias.data.fill_(-100)
    with pytest.warns(UserWarning, match="hook"):
        trunk = cut(model, "relu", pictures(1))
    copied = redirected(trunk.module)
    x = pictures()
    assert torch.equal(copied(x), trunk.module(x))
    assert not torch.func.grad(lambda x: trunk.module(x).sum())(x).any()
    assert torch.func.grad(lambda x: copied(x).sum())(x).flatten(1).any(1).all()


def test_redirected_keeps_what_an_in_place_relu_does_to_its_other_readers() -> None:
    class Preactivated(nn.Module):
        """The sum reads what the in-place ReLU left behind, not what the stem gave."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
            self.conv, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.conv(self.relu(x))
            return self.last(x + y)

    trunk = traced(randomized(Preactivated()), "last")
    assert torch.equal(redirected(trunk.module)(pictures()), trunk.module(pictures()))


def test_a_module_with_two_names_can_be_cut_at_either() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)))
    model.add_module("other", model[1])
    assert_same_output(model, "1", traced(model, "1"))
    assert_same_output(model, "other", traced(model, "other"))
