"""Listed receptive fields are those found by differentiating, or are unknown."""

import copy

import pytest
import torch
from support.listings import Residual, rows_of
from torch import nn
from torch.nn import functional

from cnnvis_fast.networks.listing import layers
from cnnvis_fast.networks.load import load_model
from cnnvis_fast.networks.receptive_fields import receptive_fields


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


# torchvision


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
