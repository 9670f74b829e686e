"""Networks load from names and files, with their own preprocessing, or say in a sentence why not."""

import pickle
import socket
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cnnvis_fast.errors import InputError, nearest
from cnnvis_fast.networks import load, torchvision_models
from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.networks.load import load_model, model_names
from cnnvis_fast.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, describe
from cnnvis_fast.networks.probe import input_channels

SMALL = "squeezenet1_1"


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch, tmp_path_factory):
    def refuse(*_):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # An empty cache, so that weights which this machine happens to have do not hide a download.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))


@pytest.fixture
def asked_for(monkeypatch):
    """Replaces torchvision's networks by a tiny one and tells which weights were asked for."""
    asked = []

    def get_model(name, weights=None, **_):
        asked.append((name, weights))
        return nn.Sequential(nn.Conv2d(3, 2, 3))

    monkeypatch.setattr(load.zoo, "get_model", get_model)
    return asked


def other_weights(model, seed=1):
    """Weights that the network could have, and has not."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in model.state_dict().items():
        fresh = torch.rand(value.shape, generator=generator)
        state[name] = fresh.to(value.dtype) if value.dtype.is_floating_point else value
    return state


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def refusal(name, weights):
    """The sentence with which weights are refused."""
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        # A warning of the unpickler's inner life would stand beside the sentence.
        warnings.simplefilter("error")
        load_model(name, weights)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text.replace(str(weights), "")) < 400
    return text


# Names


def test_names_are_those_of_classification_networks():
    names = model_names()
    assert {"texturenet", "vgg16", "squeezenet1_0", "googlenet", "inception_v3", "vit_b_16"} <= {*names}
    assert len(set(names)) == len(names)
    assert not {"fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "quantized_resnet18"} & {*names}


@pytest.mark.parametrize(
    "typed, meant", [("vgg_16", "vgg16"), ("resnet", "resnet18"), ("TextureNet", "texturenet")]
)
def test_an_unknown_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"unknown model '{typed}'; did you mean .*\b{meant}\b"):
        load_model(typed)


def test_a_name_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(InputError, match=r"unknown model 'zzzz'.*torchvision\.models"):
        load_model("zzzz")


# Weights by name


@pytest.mark.parametrize("choice", ["DEFAULT", "default"])
def test_texturenet_has_its_trained_weights_in_the_package(choice):
    network = load_model("texturenet", choice)
    assert network.cnnvis_source.name == "texturenet"
    assert network.cnnvis_source.weights == "default"
    assert weights_digest(network) != weights_digest(load_model("texturenet", None))


@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_no_weights_are_the_same_random_ones_at_every_call(name):
    torch.manual_seed(1)
    first = load_model(name, None)
    torch.manual_seed(2)
    assert_same_state(load_model(name, "none").state_dict(), first.state_dict())
    # Random, not constant: otherwise the network would show nothing.
    assert all(p.std() > 0 for n, p in first.named_parameters() if p.ndim == 4)


@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_loading_leaves_the_global_random_numbers_alone(name):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_model(name, None)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("choice", [None, "none", "None", "NONE"])
@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_none_may_be_written_as_one_likes(name, choice, asked_for):
    assert load_model(name, choice).cnnvis_source.weights == "none"


@pytest.mark.parametrize(
    "choice, selected",
    [
        ("DEFAULT", "IMAGENET1K_V2"),
        ("default", "IMAGENET1K_V2"),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("IMAGENET1K_V2", "IMAGENET1K_V2"),
    ],
)
def test_weights_are_torchvisions_by_their_name(choice, selected, asked_for):
    source = load_model("resnet50", choice).cnnvis_source
    assert asked_for == [("resnet50", torchvision.models.ResNet50_Weights[selected])]
    assert source.weights == selected


@pytest.mark.parametrize("name", ["texturenet", "vgg16"])
def test_unknown_weights_are_answered_with_the_known_ones(name, asked_for):
    text = refusal(name, "IMAGENET1K_V9")
    assert all(word in text for word in ("IMAGENET1K_V9", name, "default", "none"))
    assert ("IMAGENET1K_FEATURES" in text) == (name == "vgg16")
    assert asked_for == []


@pytest.mark.parametrize("choice", ["default", "none"])
def test_a_word_stays_a_word_where_a_folder_bears_it(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / choice).mkdir()
    assert load_model("texturenet", choice).cnnvis_source.weights == choice


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out"), ConnectionResetError()])
def test_a_failed_download_is_one_sentence_with_a_way_out(error, monkeypatch):
    def urlopen(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    text = refusal(SMALL, "DEFAULT")
    assert SMALL in text
    assert "path" in text


def test_a_damaged_file_in_torchs_cache_is_one_sentence():
    address = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    cached = Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[-1])
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"PK\x03\x04 half a download")
    assert SMALL in refusal(SMALL, "DEFAULT")


# Weights from files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("name", ["texturenet", SMALL])
def test_weights_come_back_from_a_file_bit_by_bit(name, suffix, tmp_path):
    state = other_weights(load_model(name, None))
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = load_model(name, path)
    assert_same_state(network.state_dict(), state)
    assert network.cnnvis_source.weights == path.name
    assert load_model(name, str(path)).cnnvis_source == network.cnnvis_source


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
    ],
    ids=["state_dict", "model", "data_parallel", "state_dict of data_parallel", "before num_batches_tracked"],
)
def test_the_usual_checkpoints_are_read(wrap, tmp_path):
    state = other_weights(load_model("texturenet", None))
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    assert_same_state(load_model("texturenet", tmp_path / "checkpoint.pth").state_dict(), state)


def test_half_precision_weights_run_in_float32(tmp_path):
    state = other_weights(load_model("texturenet", None))
    halves = {name: v.half() if v.dtype.is_floating_point else v for name, v in state.items()}
    save_file(halves, tmp_path / "half.safetensors")
    network = load_model("texturenet", tmp_path / "half.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(network.classifier.weight, halves["classifier.weight"].float())


def test_a_network_comes_in_eval_mode_and_frozen(tmp_path):
    for network in (load_model("texturenet"), load_model(SMALL, None)):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "missing/below.pt"])
def test_a_missing_file_is_named(name, tmp_path):
    assert str(tmp_path / name) in refusal("texturenet", tmp_path / name)


def test_a_folder_is_no_weights_file(tmp_path):
    assert str(tmp_path) in refusal("texturenet", tmp_path)


def saved(state, path, form):
    if form == "safetensors":
        save_file(state, path)
    else:
        # Most of torchvision's own files are in the legacy form.
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(form, tmp_path):
    path = tmp_path / ("cut.safetensors" if form == "safetensors" else "cut.pth")
    content = saved(other_weights(load_model("texturenet", None)), path, form)
    lengths = {*range(0, 300, 7), *(len(content) * part // 20 for part in range(1, 20)), len(content) - 1}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        assert str(path) in refusal("texturenet", path), length


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_garbage_in_a_files_head_is_refused_or_read_but_never_a_crash(form, tmp_path):
    path = tmp_path / ("bent.safetensors" if form == "safetensors" else "bent.pth")
    content = saved({"weight": torch.arange(12.0).view(3, 4), "bias": torch.ones(3)}, path, form)
    positions = torch.randint(0, min(len(content), 700), (150,), generator=torch.Generator().manual_seed(0))
    for position in positions.tolist():
        bent = bytearray(content)
        bent[position] ^= 0x5A
        path.write_bytes(bytes(bent))
        # These are no weights of texturenet in any case.
        refusal("texturenet", path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "0123456789",
        ".gitignore\n",
        "<!DOCTYPE html><html><body>404</body></html>",
        "Not Found",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 553433881\n",
        "{'weight': [1, 2, 3]}",
        "Gpl",
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_a_text_file_is_no_weights_file(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert name in refusal("texturenet", tmp_path / name)


def test_a_text_file_is_refused_whatever_its_first_letter(tmp_path):
    # Every byte is an opcode to some unpickler, or none.
    for first in range(256):
        (tmp_path / "text.pth").write_bytes(bytes([first]) + b"ello world\n")
        refusal("texturenet", tmp_path / "text.pth")


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


def test_the_hostile_object_would_act(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "among weights"])
def test_code_in_a_pickle_does_not_run(form, inside, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "hostile.pth"
    state = other_weights(load_model("texturenet", None)) if inside else {}
    content = {**state, "zz": Hostile(mark)} if inside else Hostile(mark)
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refusal("texturenet", path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], 5, None, {"epoch": 3}, {"state_dict": 5}, {"weight": [1.0, 2.0]}, torch.ones(3)],
    ids=lambda content: type(content).__name__ + str(content)[:20],
)
def test_a_file_without_a_state_dict_says_so(content, tmp_path):
    torch.save(content, tmp_path / "content.pth")
    assert "state dict" in refusal("texturenet", tmp_path / "content.pth")


def test_a_pickled_network_is_refused(tmp_path):
    torch.save(nn.Conv2d(3, 2, 3), tmp_path / "whole.pth")
    assert "whole.pth" in refusal("texturenet", tmp_path / "whole.pth")


def test_weights_of_another_network_are_refused_with_both_names(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(load_model(SMALL, None).state_dict(), path)
    text = refusal("texturenet", path)
    assert str(path) in text
    assert "texturenet" in text
    save_file(load_model("texturenet", None).state_dict(), path)
    assert SMALL in refusal(SMALL, path)


def test_an_empty_state_dict_is_not_taken_for_weights(tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    assert "texturenet" in refusal("texturenet", tmp_path / "empty.pth")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update({"classifier.weight": torch.zeros(21, 96)}),
        lambda state: state.update({"classifier.weight": torch.zeros(96, 20)}),
        lambda state: state.pop("classifier.weight"),
        lambda state: state.update({"classifier.weight_mask": torch.ones(20, 96)}),
    ],
    ids=["more classes", "transposed", "missing", "unknown"],
)
def test_one_tensor_that_does_not_fit_is_named(change, tmp_path):
    state = load_model("texturenet", None).state_dict()
    change(state)
    save_file(state, tmp_path / "misfit.safetensors")
    text = refusal("texturenet", tmp_path / "misfit.safetensors")
    assert "1 tensors are missing, unknown or of another shape" in text
    assert "classifier.weight" in text


# Preprocessing


def test_texturenet_brings_its_own_preprocessing():
    source = load_model("texturenet").cnnvis_source
    assert (source.mean, source.std, source.size) == ((0.5,) * 3, (0.25,) * 3, 96)


def test_preprocessing_is_that_of_the_weights_not_of_the_network(asked_for):
    usual = load_model("vgg16", "IMAGENET1K_V1").cnnvis_source
    features = load_model("vgg16", "IMAGENET1K_FEATURES").cnnvis_source
    assert (usual.mean, usual.std) == (IMAGENET_MEAN, IMAGENET_STD)
    # Trained in Caffe on 0 to 255: torchvision states 1/255 for the scale.
    assert features.mean == pytest.approx((0.48235, 0.45882, 0.40784), abs=1e-5)
    assert features.std == pytest.approx((1 / 255,) * 3)


@pytest.mark.parametrize(
    "name, size", [("inception_v3", 299), ("vgg16", 224), ("efficientnet_b1", 240), ("vit_b_16", 224)]
)
def test_the_size_is_the_one_that_the_weights_expect(name, size, asked_for):
    assert load_model(name, "DEFAULT").cnnvis_source.size == size
    assert load_model(name, None).cnnvis_source.size == size


def test_a_weights_file_takes_the_preprocessing_of_the_default_weights(asked_for, tmp_path):
    state = {"0.weight": torch.zeros(2, 3, 3, 3), "0.bias": torch.zeros(2)}
    save_file(state, tmp_path / "mine.safetensors")
    source = load_model("vit_b_16", tmp_path / "mine.safetensors").cnnvis_source
    expected = torchvision.models.ViT_B_16_Weights.DEFAULT.transforms()
    assert (source.mean, source.std) == (tuple(expected.mean), tuple(expected.std))
    assert source.weights == "mine.safetensors"


def test_googlenet_from_a_file_transforms_its_input_as_the_trained_one_does(tmp_path):
    # The published file holds the auxiliary classifiers, which only training uses.
    complete = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(complete.state_dict(), tmp_path / "googlenet.pth")
    network = load_model("googlenet", tmp_path / "googlenet.pth")
    assert network.transform_input is True
    complete.transform_input = True
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(x), complete.eval()(x))


class Bare(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3)

    def forward(self, x):
        return self.conv(x)


def test_a_bare_module_is_warned_of_imagenets_preprocessing():
    with pytest.warns(UserWarning, match="ImageNet") as caught:
        source = describe(Bare(3))
    assert [str(one.message).split(":")[0] for one in caught] == ["no preprocessing given", "no size given"]
    assert (source.name, source.weights) == ("Bare", "given")
    assert (source.mean, source.std, source.size) == (IMAGENET_MEAN, IMAGENET_STD, 224)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_warned_of_no_preprocessing(channels):
    with pytest.warns(UserWarning, match=r"\[0, 1\]"):
        source = describe(Bare(channels))
    assert (source.mean, source.std) == ((0.0,) * channels, (1.0,) * channels)


@pytest.mark.filterwarnings("error")
def test_given_preprocessing_is_taken_without_a_warning():
    source = describe(Bare(1), [0.25], [0.5], size=64)
    assert (source.mean, source.std) == ((0.25,), (0.5,))
    network = load_model("texturenet")
    assert describe(network) == network.cnnvis_source
    own = describe(network, (0.1, 0.2, 0.3), (1, 1, 1))
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert (own.name, own.weights, own.size) == ("texturenet", "default", 96)


@pytest.mark.parametrize(
    "mean, std",
    [
        ((0.5,) * 3, None),
        (None, (0.5,) * 3),
        ((), ()),
        ((0.5,) * 3, (0.5,) * 2),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5,) * 3, (0.5, -1.0, 0.5)),
        ((float("nan"),) * 3, (0.5,) * 3),
        ((0.5,) * 3, (0.5, float("inf"), 0.5)),
        (0.5, 0.5),
        ("abc", "abc"),
    ],
    ids=repr,
)
def test_preprocessing_that_does_not_fit_is_refused(mean, std):
    with pytest.raises(InputError, match="`mean` and `std`"):
        describe(Bare(3), mean, std)


def test_the_channels_are_those_of_the_first_convolution():
    assert input_channels(nn.Sequential(nn.ReLU(), nn.Conv2d(6, 8, 1, groups=2), nn.Conv2d(8, 4, 1))) == 6
    assert input_channels(nn.Linear(4, 2)) == 3


# Identity


def test_the_digest_tells_weights_apart_by_a_single_bit():
    network = load_model("texturenet", None)
    before = weights_digest(network)
    assert weights_digest(load_model("texturenet", None)) == before
    value = network.features[0].weight.view(-1)[5]
    value.copy_(torch.nextafter(value, torch.tensor(10.0)))
    assert weights_digest(network) != before


def test_the_digest_tells_buffers_names_and_shapes_apart():
    def made(name, value):
        module = nn.Module()
        module.register_buffer(name, value)
        return weights_digest(module)

    values = torch.arange(6.0)
    digests = [
        made("a", values),
        made("b", values),
        made("a", values.view(2, 3)),
        made("a", values.view(torch.int32)),
        made("a", values.bfloat16()),
        made("a", torch.tensor(True)),
    ]
    assert len(set(digests)) == len(digests)


def test_no_name_is_suggested_twice():
    assert nearest("conv", ["conv4", "conv4", "conv3"]) == "; did you mean conv4 or conv3?"


def test_weights_of_a_file_are_not_drawn_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torchvision_models._Undrawn():
        network = torchvision.models.squeezenet1_1(weights=None)
        other = torch.empty(3).normal_()
    torch.manual_seed(0)
    assert torch.equal(other, torch.empty(3).normal_())  # nothing else was drawn, and that was
    save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.safetensors")
    loaded = load_model("squeezenet1_1", tmp_path / "w.safetensors")
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(value.isfinite().all() for value in loaded.state_dict().values())
