"""Networks that are not like torchvision's: right values, or a sentence."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnvis_fast as cv
from cnnvis_fast.ascent import loop

OPTIONS = {"steps": 2, "size": 24, "progress": False}
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, **OPTIONS}


class Standardized(nn.Conv2d):
    """A convolution whose weights are standardized when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight / weight.std(), self.bias, self.stride, self.padding)


class Cosine(nn.Linear):
    """A classifier on the unit sphere."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.normalize(x), functional.normalize(self.weight))


def seeded(*modules: nn.Module) -> nn.Sequential:
    network, generator = nn.Sequential(*modules).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
                norm.running_var.uniform_(0.5, 2, generator=generator)
    return network


def hooked() -> nn.Sequential:
    network = seeded(nn.Conv2d(3, 4, 3))
    network[0].register_forward_hook(lambda module, inputs, output: output * 10)
    return network


@pytest.mark.parametrize(
    "network, layer",
    [
        (seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), Standardized(4, 5, 3)), "2"),
        (seeded(Standardized(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)), "3"),
        (seeded(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Cosine(4, 5)), "3"),
        (hooked(), "0"),
    ],
    ids=["standardized", "standardized below a norm", "cosine", "hooked"],
)
def test_the_score_is_what_the_network_itself_computes(network, layer):
    pictures = cv.maximize(network, layer, [1, 3], **PLAIN)
    seen: dict[str, Tensor] = {}
    twin = copy.deepcopy(network)
    list(twin.children())[int(layer)].register_forward_hook(lambda m, i, o: seen.update(found=o))
    with torch.no_grad():
        twin(pictures.images)
    expected = torch.stack([seen["found"][0, 1].mean(), seen["found"][1, 3].mean()])
    assert torch.allclose(pictures.scores, expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_the_same_weights_and_another_forward_is_another_job(tmp_path):
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
    cv.atlas(nn.Sequential(first, nn.ReLU(), second), "2", tmp_path / "job", **PLAIN)
    with pytest.raises(cv.InputError, match="structure"):
        cv.atlas(nn.Sequential(first, nn.Tanh(), second), "2", tmp_path / "job", **PLAIN)


def test_an_edited_forward_is_another_job(tmp_path):
    class Edited(nn.Module):
        def __init__(self, sign: int) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
            self.sign = sign

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.sign * self.a(x))

    cv.atlas(Edited(1), "b", tmp_path / "job", **PLAIN)
    assert cv.atlas(Edited(1), "b", tmp_path / "job", **PLAIN).made == 0
    with pytest.raises(cv.InputError, match="structure"):
        cv.atlas(Edited(-1), "b", tmp_path / "job", **PLAIN)


class Casting(nn.Module):
    """Runs in float32 whatever it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x.float()))


def test_bfloat16_that_was_only_our_idea_gives_way_to_float32(monkeypatch):
    monkeypatch.setattr("cnnvis_fast.ascent.devices.cpu_has_bfloat16", lambda: True)
    with pytest.warns(UserWarning, match="does not run in bfloat16"):
        pictures = cv.maximize(Casting(), "last", **PLAIN)
    assert pictures.job["config"]["dtype"] == "float32"
    with pytest.raises(cv.InputError, match="does not run in bfloat16"):
        cv.maximize(Casting(), "last", dtype="bfloat16", **PLAIN)


def test_statistics_of_the_batch_are_warned_of():
    network = seeded(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 3))
    with pytest.warns(UserWarning, match="depends on the others in its batch"):
        cv.maximize(network, "2", **PLAIN)


def test_given_preprocessing_decides_the_channels():
    network = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 5))
    assert cv.maximize(network, "1", [2], mean=[0.1], std=[0.3], **OPTIONS).images.shape == (1, 1, 24, 24)


def test_autocast_around_a_call_changes_nothing():
    network = seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    expected = cv.maximize(network, "2", **PLAIN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cv.maximize(network, "2", **PLAIN)
        assert torch.equal(found.robust_scores, expected.robust_scores)
    assert torch.equal(found.pixels, expected.pixels)


def test_a_compiled_network_is_looked_at_as_it_was():
    network = seeded(nn.Conv2d(3, 4, 3))
    found = cv.maximize(torch.compile(network), "0", **PLAIN)
    assert torch.equal(found.pixels, cv.maximize(network, "0", **PLAIN).pixels)


@pytest.mark.parametrize("kind", ["pruned", "scripted"])
def test_what_cannot_be_copied_or_frozen_is_refused_in_a_sentence(kind):
    network: nn.Module = seeded(nn.Conv2d(3, 4, 3))
    if kind == "pruned":
        from torch.nn.utils import prune

        prune.l1_unstructured(network[0], "weight", 0.5)  # type: ignore[index]
        network(torch.zeros(1, 3, 24, 24)[:, :, :8, :8].requires_grad_())
    else:
        network = torch.jit.script(network)
    with pytest.raises(cv.InputError, match="undo pruning and scripting, and pass a plain module"):
        cv.maximize(network, "0", **PLAIN)


def test_weights_beside_a_module_are_refused():
    with pytest.raises(cv.InputError, match="given by name"):
        cv.maximize(seeded(nn.Conv2d(3, 4, 3)), "0", weights="/nonexistent.pth", **PLAIN)


def test_an_empty_output_name_is_refused():
    with pytest.raises(cv.InputError, match="`out` is empty"):
        cv.atlas(seeded(nn.Conv2d(3, 4, 3)), "0", "", **PLAIN)


def test_nothing_is_revived_where_there_is_nothing_to_redirect(monkeypatch):
    calls = []
    original = loop.step_function
    monkeypatch.setattr(loop, "step_function", lambda *given: calls.append(given) or original(*given))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 2, 3))
    nn.init.zeros_(network[2].weight)
    assert cv.maximize(network, "2", **PLAIN).status == ["dead", "dead"]
    assert len(calls) == 1


class Spare(nn.Module):
    """Has a convolution that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def test_all_leaves_out_what_does_not_run_and_tells_it_once(tmp_path):
    with pytest.warns(UserWarning) as caught:
        made = cv.atlas(Spare(), "all", tmp_path / "job", **PLAIN)
    assert [str(one.message) for one in caught] == ["skipping unused, which does not run on a whole picture"]
    assert (made.layers, made.made) == (["first", "last"], 6)
    for layers in ("unused", ["first", "unused"]):
        with pytest.raises(cv.InputError, match="unused"):
            cv.atlas(Spare(), layers, tmp_path / "named", **PLAIN)
    assert not (tmp_path / "named").exists()


@pytest.mark.parametrize(
    "given, told",
    [
        (seeded(nn.Conv2d(3, 4, 3)).state_dict(), "a state dict: load it into its network first"),
        (Spare, r"the class Spare: pass an instance, Spare\(\)"),
        (
            nn.DataParallel(seeded(nn.Conv2d(3, 4, 3))),
            "is a DataParallel: pass the network in it, model.module",
        ),
        (3, "got int$"),
    ],
    ids=["state dict", "class", "parallel", "number"],
)
def test_what_is_no_network_is_refused_with_what_to_pass(given, told):
    with pytest.raises(cv.InputError, match=told):
        cv.maximize(given, "0", **PLAIN)
