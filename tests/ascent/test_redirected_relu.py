"""The redirected rectifier computes the same and has a gradient where all is off."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from support.trunks import Deciding, Residual, output_of, pictures, randomized, traced
from torch import Tensor, nn
from torch.nn import functional

from cnnvis_fast.ascent.redirected_relu import redirected
from cnnvis_fast.networks.trunk import Trunk, cut


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
