"""The listing tells the truth about a network, and leaves the network as it was."""

import copy
import json
import re

import pytest
import torch
import torchvision
from support.listings import Mixed, Residual, rows_of
from torch import nn

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks import trunk
from cnnvis_fast.networks.listing import Layer, layers
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.program import make_program


def fixed_in_train_mode(model):
    """A network of which the caller froze one BatchNorm, as is usual in fine-tuning."""
    model.train()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    return model


# Names


def test_texturenet_is_listed_in_full():
    table = cv.layers("texturenet")
    names = [row.name for row in table]
    assert names == [*(f"features.{n}" for n in range(17)), "pool", "classifier", "logits"]
    assert {row.alias: (row.name, row.channels) for row in table if row.alias} == {
        "conv1": ("features.0", 24),
        "conv2": ("features.4", 48),
        "conv3": ("features.8", 64),
        "conv4": ("features.11", 64),
        "conv5": ("features.14", 96),
    }
    sides = {row.name: (row.height, row.width) for row in table}
    assert [sides[f"features.{n}"] for n in (0, 3, 4, 7, 14)] == [(s, s) for s in (96, 48, 48, 24, 24)]
    assert sides["pool"] == (1, 1)
    assert sides["classifier"] == (0, 0)
    assert {row.kind for row in table} >= {"Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear", "output"}


def test_the_logits_are_the_last_row():
    row = cv.layers("texturenet")[-1]
    assert row == Layer("logits", "", "output", 20, 0, 0, -1, "vector")


def test_a_name_and_its_network_are_listed_alike():
    assert list(cv.layers("texturenet")) == list(layers(load_model("texturenet")))


def test_rows_stand_in_the_order_in_which_they_run():
    assert [row.name for row in layers(Mixed(), channels=3)] == ["conv3", "again", "late", "logits"]


def test_a_module_that_runs_twice_is_listed_as_it_runs_first():
    row = rows_of(Mixed(), channels=3)["again"]
    assert (row.channels, row.receptive_field) == (4, 3)


def test_containers_are_rows_but_sequences_only_repeat_their_last_member():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Residual.Block(3, 6, 2)
            self.chain = nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU())

        def forward(self, x):
            return self.chain(self.block(x))

    rows = rows_of(Two(), size=32)
    assert (rows["block"].kind, rows["block"].channels, rows["block"].height) == ("Block", 6, 16)
    assert rows["block"].receptive_field == rows["block.second"].receptive_field == 11
    assert "chain" not in rows
    assert rows["chain.1"].channels == 4


def test_what_yields_no_single_map_or_vector_is_no_target():
    class Pairs(nn.Module):
        class Both(nn.Module):
            def forward(self, x):
                return x, x

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.both = self.Both()
            self.windows = nn.Unflatten(2, (2, 7))
            self.word = nn.Linear(14, 5)

        def forward(self, x):
            x, _ = self.both(self.conv(x))
            return {"words": self.word(self.windows(x))}

    assert [row.name for row in layers(Pairs(), size=16)] == ["conv"]


class Tokens(nn.Module):
    """Patches as tokens with one for the class, attention, and back to maps with channels last."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(12)
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))

        def forward(self, x):
            y = self.norm(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(x)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.word = nn.Parameter(torch.randn(1, 1, 12))
        self.drop = nn.Dropout(0.1)
        self.block = self.Block()
        self.fold = nn.Unflatten(1, (4, 4))
        self.head = nn.Linear(12, 7)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.drop(torch.cat([self.word.expand(x.shape[0], -1, -1), x], 1))
        x = self.block(x)
        return self.head(self.fold(x[:, 1:]).mean((1, 2)))


def test_tokens_and_maps_with_channels_last_are_listed_with_their_channels():
    table = layers(Tokens(), size=32)
    rows = {row.name: row for row in table}
    assert {name: (row.channels, row.height, row.width, row.layout) for name, row in rows.items()} == {
        "patches": (12, 4, 4, "maps"),
        "drop": (12, 17, 0, "tokens"),
        "block.norm": (12, 17, 0, "tokens"),
        "block.mlp.0": (20, 17, 0, "tokens"),
        "block.mlp.1": (20, 17, 0, "tokens"),
        "block.mlp.2": (12, 17, 0, "tokens"),
        "block": (12, 17, 0, "tokens"),
        "fold": (12, 4, 4, "maps, channels last"),
        "head": (7, 0, 0, "vector"),
        "logits": (7, 0, 0, "vector"),
    }
    lines = {line.split()[0]: line for line in str(table).splitlines()}
    assert " 12 " in lines["block"]
    assert "17 tokens" in lines["block"]
    assert "4 x 4, channels last" in lines["fold"]
    assert rows["patches"].receptive_field == rows["drop"].receptive_field == 8
    assert rows["block.norm"].receptive_field == 8
    assert {rows[name].receptive_field for name in ("block", "block.mlp.0", "fold", "head", "logits")} == {-1}


def test_windows_of_one_picture_side_by_side_are_no_target():
    class Windowed(nn.Module):
        """Cuts its map into windows, which stand where pictures of a batch stand."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.mix = nn.Linear(4, 4)

        def forward(self, x):
            windows = self.conv(x).unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1)
            return self.mix(windows.reshape(4, 16, 4)).sum((0, 1))[None]

    assert [row.name for row in layers(Windowed(), size=8)] == ["conv", "logits"]


def test_maps_as_output_are_listed_with_their_size():
    row = rows_of(Residual(), size=40)["logits"]
    assert (row.channels, row.height, row.width) == (6, 20, 20)


def test_networks_of_other_channels_need_no_word():
    for channels in (1, 2, 6):
        rows = rows_of(nn.Sequential(nn.Conv2d(channels, 5, 3), nn.ReLU()), size=16)
        assert (rows["0"].channels, rows["0"].height) == (5, 14)


def test_channels_are_found_where_the_first_convolution_to_run_is_not_the_first_defined():
    assert [row.name for row in layers(Mixed())] == ["conv3", "again", "late", "logits"]


def test_channels_may_be_told_where_no_convolution_tells_them():
    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AvgPool2d(2)

        def forward(self, x):
            return self.pool(x)

    assert rows_of(Depthwise(), size=16, channels=5)["pool"].channels == 5


def test_a_network_in_double_precision_is_listed():
    assert rows_of(Residual().double(), size=16)["stem"].channels == 4


# Size


def test_output_sizes_follow_the_size():
    rows = rows_of("texturenet", size=64)
    assert (rows["features.0"].height, rows["features.14"].width) == (64, 16)


def test_a_bare_module_is_listed_at_224():
    assert rows_of(Residual())["stem"].height == 224


@pytest.mark.parametrize("size", [0, -3, 1.5, True, "64"], ids=repr)
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match="size"):
        layers("texturenet", size=size)


def test_a_size_at_which_the_network_does_not_run_is_refused_with_both():
    network = nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 7))
    with pytest.raises(
        InputError, match=r"Sequential does not run on a 3 x 12 x 12 picture .*size"
    ) as caught:
        layers(network, size=12)
    assert "\n" not in str(caught.value)
    assert rows_of(network, size=13)["1"].height == 1


# Receptive fields


def test_a_network_that_cannot_be_traced_is_listed_without_receptive_fields():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > 1 else self.conv(-x)

    table = layers(Branching(), size=16)
    assert [(row.name, row.receptive_field) for row in table] == [("conv", None), ("logits", None)]
    assert "unknown" in str(table)


# The network stays as it was


@pytest.mark.parametrize("size", [32, 4], ids=["listed", "refused"])
def test_the_network_is_left_as_it_was(size):
    model = fixed_in_train_mode(nn.Sequential(Residual(), nn.Conv2d(6, 2, 7, bias=False), nn.BatchNorm2d(2)))
    modes = {name: module.training for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    assert len(set(modes.values())) == 2
    try:
        layers(model, size=size)
    except InputError:
        assert size == 4
    else:
        assert size == 32
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "cnnvis_source")


# Output


def test_the_table_prints_a_line_per_row():
    table = cv.layers("texturenet")
    lines = str(table).splitlines()
    assert len(lines) == len(table) + 1
    assert lines[0].split() == ["name", "alias", "kind", "channels", "output", "receptive", "field"]
    assert lines[1].split() == ["features.0", "conv1", "Conv2d", "24", "96", "x", "96", "5", "px"]
    assert lines[-1].split() == ["logits", "output", "20", "vector", "whole", "picture"]
    assert repr(table) == str(table)


class Blended(nn.Module):
    """A branch through autograd, one that is not, and both in a block."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.smooth, self.plain = nn.Softplus(), nn.ReLU()

        def forward(self, x):
            return torch.cat([self.smooth(x), self.plain(x)], 1)

    def __init__(self):
        super().__init__()
        self.conv, self.block, self.last = nn.Conv2d(3, 4, 3), self.Block(), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return torch.cumsum(self.last(self.block(self.conv(x))), 3)


def test_what_runs_through_autograd_is_told_for_each_target():
    table = cv.layers(Blended(), size=16)
    assert {row.name: row.through_autograd for row in table} == {
        "conv": [],
        "block.smooth": ["block.smooth"],
        "block.plain": [],
        "block": ["block.smooth"],
        "last": ["block.smooth"],
        "logits": ["block.smooth", "cumsum"],
    }
    lines = str(table).splitlines()
    assert lines[0].endswith("through autograd")
    assert lines[-1].endswith("block.smooth, cumsum")


@pytest.mark.parametrize("name", ["googlenet", "swin_t", "vit_b_32", "maxvit_t"])
@pytest.mark.slow
def test_what_is_listed_as_through_autograd_is_what_programs_report(name):
    model = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    listed = {row.name: row.through_autograd for row in cv.layers(model)}
    for layer in [*list(listed)[:: len(listed) // 3], "logits"]:
        x = torch.zeros(1, 3, 224, 224)
        made = make_program(trunk.cut(model, layer, x, fold=False).module, x)
        # A cut graph numbers its nodes anew.
        assert [*map(unnumbered, made.report().through_autograd)] == [*map(unnumbered, listed[layer])]


def unnumbered(name):
    return re.sub(r"^(getitem|cat)_\d+$", r"\1", name)


def test_the_table_is_a_sequence_and_plain_data():
    table = cv.layers("texturenet")
    assert len(table) == len(list(table)) == 20
    assert table[-1] is list(table)[-1]
    assert [row.name for row in table[:2]] == ["features.0", "features.1"]
    plain = json.loads(json.dumps(table.as_dicts()))
    assert [Layer(**row) for row in plain] == list(table)
