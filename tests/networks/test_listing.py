"""The listing tells the truth about a network, and leaves the network as it was."""

import copy
import json
import re

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import cnnvis_fast as cv
from cnnvis_fast.errors import InputError
from cnnvis_fast.networks import trunk
from cnnvis_fast.networks.listing import Layer, layers
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.names import convolutions, resolve
from cnnvis_fast.networks.receptive_fields import receptive_fields
from cnnvis_fast.program import make_program


def rows_of(model, **options):
    return {row.name: row for row in layers(model, **options)}


def linearized(model):
    """A copy in which every input that can matter does, and with positive weight, so that nothing cancels."""
    model = copy.deepcopy(model).double().eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
        elif isinstance(module, nn.ReLU6):
            model.set_submodule(name, nn.Identity())  # it would clip what grows from block to block
        elif isinstance(module, nn.MaxPool2d):
            pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            model.set_submodule(name, pool)
    return model


def seen_by_the_center(model, size, channels=3, names=None):
    """Height and width of what each module's central output sees, found by differentiating."""
    outputs, model = {}, linearized(model)

    def keep(name):
        def hook(_module, _inputs, output):
            outputs.setdefault(name, output.clone())

        return hook

    for name, module in model.named_modules():
        if names is None or name in names:
            module.register_forward_hook(keep(name))
    x = torch.ones(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    model(x)
    extents = {}
    for name, output in outputs.items():
        if output.ndim != 4:
            continue
        center = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
        (gradient,) = torch.autograd.grad(center, x, retain_graph=True)
        touched = gradient[0].abs().sum(0) > 0
        spans = [touched.any(axis).nonzero().flatten() for axis in (1, 0)]
        extents[name] = tuple(int(span.max() - span.min()) + 1 for span in spans)
    return extents


def fixed_in_train_mode(model):
    """A network of which the caller froze one BatchNorm, as is usual in fine-tuning."""
    model.train()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    return model


class Residual(nn.Module):
    """Two blocks with a shortcut, the first of which halves the picture."""

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
            self.norm = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(outputs, outputs, 5, padding=2)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, x):
            y = self.second(self.relu(self.norm(self.first(x))))
            y += self.shortcut(x)
            return self.relu(y)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = self.Block(4, 6, 2)
        self.two = self.Block(6, 6, 1)

    def forward(self, x):
        return self.two(self.one(self.stem(x)))


class Concat(nn.Module):
    """Branches that see different amounts, side by side."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.narrow = nn.Conv2d(3, 2, 1)
        self.wide = nn.Conv2d(3, 3, 7, padding=3)
        self.dilated = nn.Conv2d(3, 2, 3, padding=4, dilation=4)
        self.after = nn.Conv2d(7, 5, 3, padding=1)

    def forward(self, x):
        x = self.pool(x)
        return self.after(torch.cat([self.narrow(x), self.wide(x), self.dilated(x)], 1))


class Rectangular(nn.Module):
    """A square window in two strips, as Inception has them, and one that is not square."""

    def __init__(self):
        super().__init__()
        self.across = nn.Conv2d(3, 4, (1, 7), padding=(0, 3))
        self.down = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        self.flat = nn.MaxPool2d((1, 2))
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.last(self.flat(self.down(self.across(x))))


class Gated(nn.Module):
    """Squeeze and excitation: after it everything sees the whole picture."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Conv2d(8, 8, 1)
        self.gate = nn.Sigmoid()
        self.after = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return self.after(x * self.gate(self.excite(self.squeeze(x))))


class Mixed(nn.Module):
    """Runs in another order than it is defined, names a module conv3, has one that never runs."""

    def __init__(self):
        super().__init__()
        self.late = nn.Conv2d(4, 2, 3, padding=1)
        self.conv3 = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(3, 9, 1)
        self.again = nn.ReLU()

    def forward(self, x):
        return self.again(self.late(self.again(self.conv3(x))))


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


def test_the_alias_counts_convolutions_as_they_are_defined():
    assert convolutions(Mixed()) == {"conv1": "late", "conv2": "conv3", "conv3": "unused"}
    assert resolve(Mixed(), "conv1") == "late"


def test_a_module_of_the_aliass_name_wins():
    assert resolve(Mixed(), "conv3") == "conv3"
    assert resolve(Mixed(), "conv2") == "conv3"


def test_rows_stand_in_the_order_in_which_they_run():
    assert [row.name for row in layers(Mixed(), channels=3)] == ["conv3", "again", "late", "logits"]


def test_a_module_that_runs_twice_is_listed_as_it_runs_first():
    row = rows_of(Mixed(), channels=3)["again"]
    assert (row.channels, row.receptive_field) == (4, 3)


def test_a_path_an_alias_and_the_output_resolve():
    network = load_model("texturenet")
    assert resolve(network, "features.14") == "features.14" == resolve(network, "conv5")
    assert resolve(network, "features") == "features"
    assert resolve(network, "logits") == "logits"


@pytest.mark.parametrize(
    "typed, meant", [("feature.14", "features.14"), ("conv6", "conv5"), ("clasifier", "classifier")]
)
def test_an_unknown_layer_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"unknown layer '{typed}'.*did you mean.*\b{meant}\b"):
        resolve(load_model("texturenet"), typed)


def test_a_layer_like_no_other_is_answered_with_the_first():
    with pytest.raises(InputError, match=r"unknown layer 'zzz' of TextureNet: the first are features, "):
        resolve(load_model("texturenet"), "zzz")


@pytest.mark.parametrize("layer", [None, 5, ("conv1",)], ids=repr)
def test_a_layer_is_a_name(layer):
    with pytest.raises(InputError, match="layer"):
        resolve(load_model("texturenet"), layer)


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


@pytest.mark.parametrize(
    "model, size, channels",
    [
        (load_model("texturenet"), 96, 3),
        (Residual(), 64, 3),
        (Concat(), 64, 3),
        (nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.AvgPool2d(2), nn.Conv2d(4, 2, 3, dilation=3)), 64, 1),
        (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.GELU(), nn.Conv2d(6, 4, 1), nn.Dropout()), 32, 3),
    ],
    ids=["texturenet", "residual", "concat", "dilated", "depthwise"],
)
def test_receptive_fields_are_those_found_by_differentiating(model, size, channels):
    listed = rows_of(model, size=size)
    measured = seen_by_the_center(model, size, channels)
    compared = 0
    for name, row in listed.items():
        if name in measured and row.receptive_field != -1:
            assert (row.receptive_field,) * 2 == measured[name], name
            compared += 1
    assert compared >= 3


def test_rows_and_columns_are_followed_apart():
    listed, measured = rows_of(Rectangular(), size=64), seen_by_the_center(Rectangular(), 64)
    assert measured["down"] == (7, 7)
    assert listed["down"].receptive_field == 7
    # One number for a window that is not square: its longer side.
    assert measured["across"] == (1, 7)
    assert listed["across"].receptive_field == 7
    assert listed["last"].receptive_field == max(measured["last"])


def test_everything_behind_a_gate_sees_the_whole_picture():
    listed = rows_of(Gated(), size=32)
    assert listed["conv"].receptive_field == 3
    assert {listed[name].receptive_field for name in ("squeeze", "excite", "gate", "after")} == {-1}
    assert seen_by_the_center(Gated(), 32)["after"] == (32, 32)


def test_an_unknown_operation_gives_no_number_rather_than_a_wrong_one():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.second(torch.fft.fft2(self.first(x)).real)

    listed = rows_of(Shuffled(), size=16)
    assert listed["first"].receptive_field == 3
    assert listed["second"].receptive_field in (None, -1)


class Pointwise(nn.Module):
    """Linear layers over channels and norms of a position, as ConvNeXt has them, with a gated branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Conv2d(6, 6, 7, padding=3, groups=6)
        self.up = nn.Linear(6, 12)
        self.down = nn.Linear(12, 6)
        self.shrink = nn.AdaptiveAvgPool2d(4)
        self.group = nn.GroupNorm(2, 6)

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.wide(x).permute(0, 2, 3, 1)
        y = self.down(functional.gelu(self.up(functional.layer_norm(y, (6,)))))
        x = self.shrink(x + y.permute(0, 3, 1, 2))
        return self.group(x)


def test_linear_layers_and_norms_over_channels_see_one_position():
    rows = rows_of(Pointwise(), size=32)
    assert {name: row.receptive_field for name, row in rows.items()} == {
        "stem": 4,
        "norm": 4,
        "wide": 28,  # 4 + 6 * 4
        "up": 28,
        "down": 28,
        "shrink": 32,  # two positions side by side
        "group": -1,
        "logits": -1,
    }


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.flatten(2).transpose(1, 2) @ x.flatten(2),
        lambda x: x.flatten(1),
        lambda x: functional.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3)),
        lambda x: x.flatten(2).softmax(-1),
        lambda x: functional.layer_norm(x, x.shape[1:]),
        lambda x: functional.linear(x.flatten(2), torch.ones(5, 64)),
        lambda x: functional.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3),
    ],
    ids=["product", "flatten", "pool", "mean", "softmax", "norm", "linear", "attention"],
)
def test_what_mixes_all_positions_sees_the_whole_picture(mix):
    assert field_behind(mix) == -1


@pytest.mark.parametrize(
    "shift",
    [
        lambda x: x[:, :, 1:] + x[:, :, :-1],
        lambda x: x.roll(1, 2),
        lambda x: x + x.transpose(2, 3),
        lambda x: x.chunk(2, 2)[0] * x.chunk(2, 2)[1],
        lambda x: functional.pixel_unshuffle(x, 2),
        lambda x: x.mean(2, keepdim=True),
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: x.reshape(1, 4, 2, 4, 8).transpose(1, 2).flatten(1, 2),
    ],
    ids=["neighbors", "roll", "mirror", "halves", "unshuffle", "rows", "interpolate", "bands"],
)
def test_what_moves_positions_against_each_other_is_unknown(shift):
    assert field_behind(shift) is None


@pytest.mark.parametrize(
    "keep",
    [
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.flatten(2)[:, :, None],
        lambda x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2),  # channel shuffle
        lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
        lambda x: x.mean(1, keepdim=True),
        lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x.softmax(1),
        lambda x: functional.max_pool2d(x, 1),
        lambda x: torch.matmul(x.permute(0, 2, 3, 1), torch.ones(4, 2)),
    ],
    ids=["tokens", "last", "line", "shuffle", "halves", "mean", "unit", "softmax", "pool", "product"],
)
def test_what_leaves_positions_alone_sees_no_more(keep):
    assert field_behind(keep) == 3


def field_behind(function):
    """Receptive field of a function of the output of a 3 x 3 convolution, 8 x 8 with 4 channels."""

    class Function(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.after = nn.Identity()

        def forward(self, x):
            return self.after(function(self.conv(x)))

    return receptive_fields(Function(), torch.zeros(1, 3, 8, 8))["after"]


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


# torchvision

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
]


def test_no_family_of_torchvision_is_left_out():
    zoo = torchvision.models
    every = {zoo.get_model_builder(name).__module__ for name in zoo.list_models(module=zoo)}
    assert {zoo.get_model_builder(name).__module__ for name in FAMILIES} == every


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_is_listed(name):
    network = load_model(name, None)
    table = layers(network)
    assert (table[-1].name, table[-1].channels, table[-1].height) == ("logits", 1000, 0)
    aliases = convolutions(network)
    assert {row.alias for row in table if row.alias} == {*aliases}
    first = next(row for row in table if row.alias == "conv1")
    assert first.receptive_field in (None, max(network.get_submodule(first.name).kernel_size))
    assert all(
        row.receptive_field is None or row.receptive_field == -1 or row.receptive_field > 0 for row in table
    )


@pytest.mark.slow
def test_published_receptive_fields_of_vgg16():
    # Every 3x3 convolution adds twice the distance of neighbors, every 2x2 pool adds it once and doubles it.
    expected = {0: 3, 2: 5, 4: 6, 5: 10, 7: 14, 9: 16, 10: 24, 12: 32, 14: 40, 16: 44, 17: 60, 19: 76, 21: 92}
    expected |= {23: 100, 24: 132, 26: 164, 28: 196, 30: 212}
    listed = rows_of("vgg16", weights="none")
    assert {n: listed[f"features.{n}"].receptive_field for n in expected} == expected


@pytest.mark.slow
def test_published_receptive_fields_of_resnet18():
    # 7 -> 11 (pool) -> 11 + 4 * 8; then each stage: one step of the old distance, three of the doubled one.
    expected = {"conv1": 7, "maxpool": 11, "layer1.1": 43, "layer2.1": 99, "layer3.1": 211, "layer4.1": 435}
    listed = rows_of("resnet18", weights="none")
    assert {name: listed[name].receptive_field for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("name, size", [("squeezenet1_0", 320), ("mobilenet_v2", 512), ("googlenet", 512)])
def test_receptive_fields_of_real_networks_are_those_found_by_differentiating(name, size):
    network = load_model(name, None)
    network.transform_input = False
    # Deep fields reach beyond the picture, where nothing can be measured.
    chosen = [row for row in layers(network) if row.alias and 0 < (row.receptive_field or 0) < size][::5]
    assert len(chosen) >= 5
    measured = seen_by_the_center(network, size, names=[row.name for row in chosen])
    assert {row.name: row.receptive_field for row in chosen} == {n: max(measured[n]) for n in measured}
