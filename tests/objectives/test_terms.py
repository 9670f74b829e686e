"""Every objective has the score and gradient of its formula, and bits that do not depend on others."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import cnnvis_fast as cv
from cnnvis_fast import objectives as ob
from cnnvis_fast.ascent.plan import plan_objectives
from cnnvis_fast.config import configure
from cnnvis_fast.networks.preprocessing import Source

SIZE = 20
SOURCE = Source("small", "given", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), SIZE)
PHOTO = Image.fromarray((np.random.default_rng(0).random((SIZE, SIZE, 3)) * 255).astype(np.uint8))


class Tokens(nn.Module):
    """Maps to tokens, [N, T, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),  # 0: 10 x 10
        nn.SiLU(),
        nn.Conv2d(6, 8, 3, groups=2),  # 2: 8 x 8
        nn.ReLU(inplace=True),
        Tokens(),  # 4: 64 tokens of 8
        nn.Linear(8, 5),  # 5
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(320, 7),  # 8 = logits
    ).eval()


VECTOR = torch.linspace(-1, 2, 8).tolist()


def at(outputs: dict[str, Tensor], layer: str) -> Tensor:
    """Returns the columns of one picture, [C, positions]."""
    h = outputs[layer]
    return h.T if layer in ("4", "5") else h.flatten(1) if h.ndim == 3 else h[:, None]


def likeness(outputs: dict[str, Tensor], photo: dict[str, Tensor], layer: str) -> Tensor:
    return -(outputs[layer] - photo[layer]).square().sum() / photo[layer].square().sum()


def cosine_direction(
    outputs: dict[str, Tensor], layer: str, power: float, place: int | None = None
) -> Tensor:
    columns, vector = at(outputs, layer), torch.tensor(VECTOR, dtype=torch.float64)
    dot = (columns * vector[:, None]).sum(0)
    cosine = dot / (columns.norm(dim=0) * vector.norm() + 1e-30)
    found = dot * cosine.clamp_min(0.1) ** power
    return found.mean() if place is None else found[place]


def caricatured(outputs: dict[str, Tensor], photo: dict[str, Tensor], layer: str, power: float) -> Tensor:
    dot, own, other = (
        (one * two).sum()
        for one, two in (
            (outputs[layer], photo[layer]),
            (outputs[layer], outputs[layer]),
            (photo[layer], photo[layer]),
        )
    )
    return dot / other * (dot / (own * other).sqrt()).clamp_min(0.1) ** power


Formula = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]
CASES: dict[str, tuple[ob.Objective, Formula]] = {
    "folded sum": (
        2 * ob.channel("2", 1) - 0.5 * ob.neuron("2", 5, (3, 4)),
        lambda h, _: 2 * h["2"][1].mean() - 0.5 * h["2"][5, 3, 4],
    ),
    "sum of other outputs": (
        ob.channel("1", 1) + 3 * ob.neuron("1", 2),
        lambda h, _: h["1"][1].mean() + 3 * h["1"][2, 5, 5],
    ),
    "sum over layers": (
        ob.channel("0", 1) - ob.channel("2", 1) + 0.1 * ob.logit(3),
        lambda h, _: h["0"][1].mean() - h["2"][1].mean() + 0.1 * h["8"][3],
    ),
    "linear direction": (ob.direction("2", VECTOR), lambda h, _: cosine_direction(h, "2", 0)),
    "direction": (ob.direction("2", VECTOR, 1.5), lambda h, _: cosine_direction(h, "2", 1.5)),
    "direction at a neuron": (
        ob.direction("2", VECTOR, 2.0, (1, 2)),
        lambda h, _: cosine_direction(h, "2", 2.0, 1 * 8 + 2),
    ),
    "direction of tokens": (ob.direction("4", VECTOR, 1.0), lambda h, _: cosine_direction(h, "4", 1.0)),
    "tokens": (ob.channel("5", 2), lambda h, _: h["5"][:, 2].mean()),
    "one token": (ob.neuron("5", 2, 7) * 1.5, lambda h, _: 1.5 * h["5"][7, 2]),
    "logit": (ob.logit(4), lambda h, _: h["8"][4]),
    "deepdream": (ob.deepdream("2"), lambda h, _: h["2"].square().mean()),
    "caricature": (ob.caricature(PHOTO, "1", 2.0), lambda h, photo: caricatured(h, photo, "1", 2.0)),
    "inversion": (ob.inversion(PHOTO, "2"), lambda h, photo: likeness(h, photo, "2")),
    "accentuation": (
        ob.accentuation(PHOTO, ob.logit(1), "1", 0.5),
        lambda h, photo: h["8"][1] + 0.5 * h["8"][1].abs().detach() * likeness(h, photo, "1"),
    ),
}


def outputs(network: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """Returns every layer's output for one normalized picture, by the layer's number."""
    found, h = {}, x[None]
    for number, module in enumerate(network):
        h = module(h.clone())
        found[str(number)] = h[0]
    return found


def photo_input() -> Tensor:
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (SOURCE.mean, SOURCE.std)
    )
    values = torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1).double() / 255
    return (values - mean) / std


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_formula_by_plain_autograd(name, network):
    objective, formula = CASES[name]
    plan = plan_objectives(network, [objective], configure(size=SIZE, dtype="float32", batch=3), SOURCE)
    x = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    selection = plan.objective.select([objective] * 3, torch.device("cpu"))

    def bound(x: Tensor) -> Tensor:
        return plan.objective.ascended(plan.module(x), *selection)[0]

    gradient = torch.func.grad(lambda x: bound(x).sum())(x.clone())
    wide = network.double()
    try:
        photo = {key: value.detach() for key, value in outputs(wide, photo_input()).items()}
        for row in range(3):
            leaf = x[row].double().requires_grad_()
            value = formula(outputs(wide, leaf), photo)
            (expected,) = torch.autograd.grad(value, leaf)
            assert float(bound(x.clone())[row].detach()) == pytest.approx(
                float(value.detach()), rel=1e-4, abs=1e-5
            )
            error = (gradient[row].double() - expected).abs().max()
            assert error <= 2e-5 * expected.abs().max() + 1e-9, (row, float(error))
    finally:
        network.float()


def test_the_penalty_for_likeness_is_that_of_gram_matrices(network):
    group = ob.diverse(ob.channel("2", 1), 3, 0.5, "1")
    plan = plan_objectives(network, group, configure(size=SIZE, dtype="float32", batch=6), SOURCE)
    x = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    selection = plan.objective.select(group * 2, torch.device("cpu"))
    total, scores = plan.objective.ascended(plan.module(x.clone()), *selection)
    seen = [outputs(network, row) for row in x]
    units = []
    for h in seen:
        gram = h["1"].flatten(1) @ h["1"].flatten(1).T
        units.append(gram / gram.norm())
    for row in range(6):
        own = float(seen[row]["2"][1].mean())
        others = [k for k in range(row // 3 * 3, row // 3 * 3 + 3) if k != row]
        alike = sum(float((units[row] * units[k]).sum()) for k in others) / 2
        assert float(scores[row]) == pytest.approx(own, rel=1e-4, abs=1e-6)
        assert float(total[row]) == pytest.approx(own - 0.5 * abs(own) * alike, rel=1e-4, abs=1e-6)
    alone = plan.objective.alone
    picked = alone.select(group[:1], torch.device("cpu"))
    assert torch.allclose(alone.scores(plan.module(x[:1].clone()), *picked), scores[:1], rtol=1e-5)


OPTIONS = {"steps": 4, "size": SIZE, "progress": False, "mean": SOURCE.mean, "std": SOURCE.std}


def test_a_picture_does_not_depend_on_what_it_is_asked_for_with(network):
    wanted = {name: objective for name, (objective, _) in CASES.items()}
    together = cv.maximize(network, list(wanted.values()), **OPTIONS)
    for row, objective in enumerate(wanted.values()):
        alone = cv.maximize(network, objective, **OPTIONS)
        assert torch.equal(alone.pixels[0], together.pixels[row]), str(objective)
        assert torch.equal(alone.scores[0], together.scores[row])
        assert torch.equal(alone.robust_scores[0], together.robust_scores[row])


def test_a_group_does_not_depend_on_its_neighbors(network):
    groups = [ob.diverse(ob.channel("2", unit), 3) for unit in range(3)]
    together = cv.maximize(network, [one for group in groups for one in group], batch=6, **OPTIONS)
    for number, group in enumerate(groups):
        alone = cv.maximize(network, group, batch=6, **OPTIONS)
        assert torch.equal(alone.pixels, together.pixels[3 * number : 3 * number + 3])
    assert len({picture.numpy().tobytes() for picture in together.pixels}) == 9


def test_a_single_channel_is_the_layers_own_picture(network):
    layer = cv.maximize(network, "2", [1, 4], **OPTIONS)
    units = cv.maximize(network, ["2:1", ob.channel("conv2", 4)], **OPTIONS)
    assert torch.equal(units.pixels, layer.pixels)
    assert (units.layer, units.filters) == ("2", [1, 4])


def test_objectives_are_saved_with_their_names(network, tmp_path):
    pictures = cv.maximize(network, ["2:1 + 0:3", ob.deepdream("1")], alpha=True, **OPTIONS)
    assert pictures.units == ["2:1 + 0:3", "deepdream(1)"]
    assert pictures.alpha is not None
    assert pictures.alpha.shape == (2, SIZE, SIZE)
    assert float(pictures.alpha.max()) == 1
    assert float(pictures.alpha.min()) >= 0
    pictures.save(tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out" / "objectives").iterdir())
    assert found == ["0000.alpha.png", "0000.png", "0001.alpha.png", "0001.png", "sheet.png"]
    assert "deepdream(1)" in (tmp_path / "out" / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (ob.channel("2", 8), "no filter 8 in 2: it has 8"),
        (ob.channel("1", 6) + ob.channel("0", 1), "no filter 6 in 1"),
        (ob.channel("nowhere", 1), "unknown layer"),
        (ob.neuron("2", 1, (8, 0)), "`position` must lie in the 8 x 8 output of 2"),
        (ob.neuron("5", 1, (3, 3)), "`position` must lie in the 64 output of 5"),
        (ob.neuron("logits", 1, (1, 1)), "`position` is for maps"),
        (ob.direction("2", [1.0, 2.0]), "`vector` must have a number for each of the 8 channels, got 2"),
        (ob.direction("2", [1.0, 2.0], 1.0), "`vector` must have a number for each of the 8 channels, got 2"),
        (ob.diverse(ob.channel("2", 1), 3)[1:], "all together, in the order"),
        ([], "one or more objectives"),
        ([3], "must come from `cnnvis_fast.objectives` or be text"),
    ],
)
def test_what_the_network_does_not_have_is_told_before_anything_runs(objective, message, network):
    with pytest.raises(cv.InputError, match=message):
        cv.maximize(network, objective, **OPTIONS)


def test_filters_and_objectives_exclude_each_other(network):
    with pytest.raises(cv.InputError, match="`filters` are channels of a layer"):
        cv.maximize(network, "2:1", [1], **OPTIONS)


def test_an_expression_is_one_graph(network):
    from support.graphs import OPS, captured_graphs

    objectives = [ob.channel("2", 1) + 0.5 * ob.deepdream("1")]
    plan = plan_objectives(network, objectives, configure(size=SIZE, steps=2, batch=2), SOURCE)
    graphs = captured_graphs(plan, objectives)
    assert len(graphs) == 1
    called = [str(node.target) for node in graphs[0].graph.nodes]
    assert [called.count(f"cnnvis_fast.{name}.default") for name in OPS] == [1] * len(OPS)


def test_a_photo_is_where_an_accentuation_starts(network):
    objective = ob.accentuation(PHOTO, ob.logit(1))
    pictures = cv.maximize(network, objective, **{**OPTIONS, "steps": 1}, rate=1e-9)
    shown = torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1).float() / 255
    inner = (shown > 0.03) & (shown < 0.97)
    assert float((pictures.images[0] - shown).abs()[inner].max()) <= 2 / 255
    assert math.isfinite(float(pictures.scores[0]))
