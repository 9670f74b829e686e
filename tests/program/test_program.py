"""Programs agree with autograd: random networks, real networks, every rule, every rewrite."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from support.networks import NETWORKS, SIZE, pictures, random_network
from torch import Tensor, nn
from torch.nn import functional

from cnnvis_fast.kernels.backends import multiplies_bfloat16
from cnnvis_fast.program import Program, make_program

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-10


def compare(module: nn.Module, x: Tensor, exact: float = EXACT, **options: Any) -> Program:
    """Compares a program's output and gradient with autograd's."""
    program = make_program(module, x[:1], **options)
    expected, pullback = torch.func.vjp(not_in_place(module), x.clone())
    gradient = torch.randn(expected.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output, back = program(x.clone())
        found = back(gradient)
    assert_close(output, expected, exact)
    assert_close(found, pullback(gradient)[0], exact)
    return program


def not_in_place(module: nn.Module) -> nn.Module:
    """Returns a copy that autograd accepts: it refuses activations that overwrite what it keeps."""
    module = copy.deepcopy(module)
    for child in module.modules():
        if hasattr(child, "inplace"):
            child.inplace = False
    return module


def assert_close(found: Tensor, expected: Tensor, exact: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= exact * max(scale, 1e-3)


class RandomNetwork(nn.Module):
    """A random stack of layers with branches; `recipe` holds the random choices."""

    def __init__(self, recipe: list[tuple[Any, ...]], channels: int) -> None:
        super().__init__()
        self.recipe, self.layers = recipe, nn.ModuleDict()
        for place, (kind, *arguments) in enumerate(recipe):
            channels = getattr(self, f"make_{kind}")(str(place), channels, *arguments)

    def make_convolution(
        self, name: str, channels: int, out: int, kernel: int, stride: int, dilation: int, depthwise: bool
    ) -> int:
        groups = channels if depthwise else 1
        out = channels * (1 + out % 2) if depthwise else out
        padding = dilation * (kernel - 1) // 2 + (kernel % 2 == 0 and out % 2)
        self.layers[name] = nn.Conv2d(
            channels, out, kernel, stride, padding, dilation, groups, bias=bool(out % 3)
        )
        return out

    def make_activation(self, name: str, channels: int, which: int) -> int:
        kinds = (
            nn.ReLU(inplace=True),
            nn.ReLU(),
            nn.ReLU6(),
            nn.LeakyReLU(0.1),
            nn.SiLU(),
            nn.GELU(),
            nn.Hardswish(),
            nn.Softplus(),
            nn.Sigmoid(),
            nn.Dropout(),
        )
        self.layers[name] = copy.deepcopy(kinds[which % len(kinds)])
        return channels

    def make_pool(self, name: str, channels: int, which: int, ceil_mode: bool) -> int:
        kinds = (
            nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_mode),
            nn.MaxPool2d(2, ceil_mode=ceil_mode),
            nn.MaxPool2d(3, 1, 1, dilation=1 + (which > 5), ceil_mode=ceil_mode),
            nn.AvgPool2d(3, 2, 1, ceil_mode=ceil_mode, count_include_pad=which > 5),
            nn.AvgPool2d(2, ceil_mode=ceil_mode),
            nn.AdaptiveAvgPool2d((3, 2)),
        )
        self.layers[name] = nn.Sequential(nn.ReLU(), kinds[which % 6]) if which % 2 else kinds[which % 6]
        return channels

    def make_norm(self, name: str, channels: int) -> int:
        norm = nn.BatchNorm2d(channels)
        norm.running_mean, norm.running_var = torch.randn(channels), torch.rand(channels) + 0.5
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        self.layers[name] = norm
        return channels

    def make_residual(self, name: str, channels: int, activated: bool) -> int:
        self.layers[name] = nn.Conv2d(channels, channels, 3, padding=1)
        return channels

    def make_branches(self, name: str, channels: int, out: int, rectified: bool) -> int:
        self.layers[f"{name}a"] = nn.Conv2d(channels, out, 1)
        self.layers[f"{name}b"] = nn.Conv2d(channels, out + 3, 3, padding=1)
        return 2 * out + 3

    def make_excitation(self, name: str, channels: int) -> int:
        self.layers[f"{name}a"] = nn.Conv2d(channels, 3, 1)
        self.layers[f"{name}b"] = nn.Conv2d(3, channels, 1)
        return channels

    def make_norm_last(self, name: str, channels: int) -> int:
        self.layers[f"{name}a"] = nn.LayerNorm(channels)
        self.layers[f"{name}b"] = nn.Linear(channels, channels)
        return channels

    def forward(self, x: Tensor) -> Tensor:
        for place, (kind, *arguments) in enumerate(self.recipe):
            name = str(place)
            if kind == "residual":
                total = x + self.layers[name](x)
                x = torch.relu(total) if arguments[0] else total
            elif kind == "branches":
                parts = [self.layers[f"{name}{branch}"](x) for branch in "ab"]
                x = torch.cat([functional.relu(p) for p in parts] if arguments[1] else parts, 1)
            elif kind == "excitation":
                pooled = functional.adaptive_avg_pool2d(x, 1)
                inner = functional.relu(self.layers[f"{name}a"](pooled))
                x = x * torch.sigmoid(self.layers[f"{name}b"](inner))
            elif kind == "norm_last":
                x = self.layers[f"{name}b"](self.layers[f"{name}a"](x.permute(0, 2, 3, 1))).permute(
                    0, 3, 1, 2
                )
            else:
                x = self.layers[name](x)
        return x


CHANNELS = st.sampled_from([1, 2, 5, 8, 11])
LAYER = st.one_of(
    st.tuples(
        st.just("convolution"),
        CHANNELS,
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(1, 2),
        st.sampled_from([False, False, True]),
    ),
    st.tuples(st.just("activation"), st.integers(0, 9)),
    st.tuples(st.just("activation"), st.integers(0, 9)),
    st.tuples(st.just("pool"), st.integers(0, 11), st.booleans()),
    st.tuples(st.just("norm")),
    st.tuples(st.just("residual"), st.booleans()),
    st.tuples(st.just("branches"), CHANNELS, st.booleans()),
    st.tuples(st.just("excitation")),
    st.tuples(st.just("norm_last")),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    recipe=st.lists(LAYER, min_size=1, max_size=7),
    channels=st.sampled_from([1, 3, 4, 6]),
    size=st.tuples(st.integers(9, 17), st.integers(9, 17)),
)
def test_random_networks_have_the_gradient_of_autograd(
    recipe: list[tuple[Any, ...]], channels: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = RandomNetwork(recipe, channels).double().eval().requires_grad_(False)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    try:
        network(x.clone())
    except RuntimeError:
        reject()  # pooled away before its last layer
    compare(network, x)


def test_an_argument_may_be_called_as_a_function_is() -> None:
    class Net(nn.Module):
        def forward(self, relu: Tensor) -> Tensor:
            return functional.max_pool2d(relu, 2)

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert compare(Net(), x).report().through_autograd == []


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_have_the_gradient_of_autograd(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    network = random_network(name, generator).double()
    program = compare(network, pictures(2, generator).double())
    slices = ["getitem", "getitem_1", "getitem_2"] if name == "googlenet" else []  # of the input's channels
    assert program.report().through_autograd == slices


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_gradients_err_no_more_than_autograd_s(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    network, x = random_network(name, generator), pictures(2, generator)
    output, pullback = torch.func.vjp(not_in_place(network).double(), x.double())
    gradient = torch.randn(output.shape, generator=generator)
    (exact,) = pullback(gradient.double())
    narrow: Any = network.bfloat16().to(memory_format=torch.channels_last)
    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
    (eager,) = torch.func.vjp(not_in_place(narrow), x.clone())[1](gradient.bfloat16())
    with torch.no_grad():
        found = make_program(narrow, x[:1])(x.clone())[1](gradient.bfloat16())

    def error(of: Tensor) -> float:
        return float((of.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())

    assert error(found) <= 2 * error(eager)


def test_weights_turned_in_float32_are_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    network: Any = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
    network.eval().requires_grad_(False)
    narrow: Any = copy.deepcopy(network).bfloat16().to(memory_format=torch.channels_last)
    x = (
        torch.randn(2, 32, 16, 16, generator=generator)
        .bfloat16()
        .contiguous(memory_format=torch.channels_last)
    )
    if not multiplies_bfloat16(x):
        pytest.skip("this CPU's convolutions in bfloat16 are the library's")
    expected, errors = copy.deepcopy(network).double()(x.double()), []
    for exact in (None, network):
        program = make_program(narrow, x[:1], exact=exact)
        assert "winograd" in program.forward_pass.code
        with torch.no_grad():
            output, back = program(x)
        assert back(torch.ones_like(output)).isfinite().all()
        errors.append(float((output.double() - expected).square().mean().sqrt()))
    assert errors[1] < 0.97 * errors[0]  # what is left is the rounding of turned pixels and filters
    assert errors[1] < 0.01 * float(expected.square().mean().sqrt())


@pytest.mark.parametrize(
    ("layers", "at_once"),
    [
        ([nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()], True),
        ([nn.Conv2d(3, 32, 3, padding=1)], False),
        ([nn.Conv2d(3, 32, 3, padding=3), nn.ReLU()], False),
        ([nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)], False),
    ],
    ids=["rectified", "plain", "beyond the picture", "pooled"],
)
def test_a_linear_function_is_that_of_the_output(layers: list[nn.Module], at_once: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    network: Any = nn.Sequential(*copy.deepcopy(layers)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
    network = network.bfloat16().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 21, 30, generator=generator).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    program = make_program(network, x[:1])
    output, back = program(x)
    maps = torch.randn(output.shape, generator=generator).bfloat16()
    maps = maps.contiguous(memory_format=torch.channels_last)
    gradient, sums = program.linear(x, maps)
    assert torch.equal(gradient, back(maps))
    products = output.double() * maps.double()
    assert_close(
        sums.double(), products.sum((1, 2, 3)), 1e-3 * float(products.abs().sum() / sums.abs().sum())
    )
    code = program._linear is not None and "stem_gradient" in str(program._linear.code)
    assert code == (at_once and multiplies_bfloat16(x))
    with pytest.raises(ValueError, match="must be pictures of"):
        program.linear(x[:, :, 1:], maps)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "swin_t"])
@pytest.mark.slow
def test_other_networks_have_the_gradient_of_autograd(name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False).double()
    compare(network, torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64))
