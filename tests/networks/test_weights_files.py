"""Weights are read from files bit by bit, and damaged or malicious files are refused."""

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.loading import SMALL, assert_same_state, refusal
from torch import nn

from cnnvis_fast.networks import torchvision_models
from cnnvis_fast.networks.load import load_model

pytestmark = pytest.mark.usefixtures("nothing_is_fetched")


def other_weights(model, seed=1):
    """Weights that the network could have, and has not."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in model.state_dict().items():
        fresh = torch.rand(value.shape, generator=generator)
        state[name] = fresh.to(value.dtype) if value.dtype.is_floating_point else value
    return state


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


# Identity


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
