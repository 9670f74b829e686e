"""Reads weights from untrusted files.

A file is read as data only: safetensors holds nothing else, and a PyTorch file may only name what tensors are
made of, which is checked before its unpickler (`weights_only=True`) sees it. Names and shapes are known
before memory is allocated for tensors, which stay on disk (mapped) until they are copied into the network.
"""

from __future__ import annotations

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import InputError, first_line

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # auxiliary classifiers that only training uses
_TENSORS = re.compile(
    r"collections (OrderedDict|defaultdict|Counter)|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|"
    r"torch(\.cuda|\.storage|\.nn\.parameter)? \w+"
)
"""The globals that a pickled state dict may name; `bytearray`, for example, could allocate any amount."""
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys
_LARGEST_PICKLE = 2**26


@dataclass(frozen=True)
class WeightsFile:
    """A weights file whose names and shapes are known.

    Attributes:
        path: path of the file.
        shapes: shapes of its tensors, by name.
        read: function that reads the tensors with the given names.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[list[str]], dict[str, Tensor]]

    def load_into(self, model: nn.Module, name: str) -> None:
        """Loads the weights into a network.

        Args:
            model: the network.
            name: its name, for messages.

        Raises:
            InputError: the file belongs to another network.
        """
        expected = model.state_dict()
        given = {key: shape for key, shape in self.shapes.items() if not key.startswith(_AUXILIARY)}
        wrong = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
        wrong += [key for key in given if key not in expected]
        shapes = [key for key in expected if key in given and given[key] != expected[key].shape]
        if wrong or shapes:
            count, example = len(wrong) + len(shapes), ascii((shapes + wrong)[0])
            raise InputError(
                f"the weights file {self.path} does not fit {name}: {count} tensors are missing, "
                f"unknown or of another shape, the first is {example[:100]}; "
                "pass the model that these weights belong to"
            )
        try:
            model.load_state_dict(self.read(list(given)), strict=False)
        except Exception as error:  # any exception: foreign bytes fail in many ways
            raise _damaged(self.path, error) from error


def open_weights(path: Path) -> WeightsFile:
    """Reads the names and shapes of a `.safetensors` file or a PyTorch state dict.

    Raises:
        InputError: there is no such file, it is damaged, or it is not a state dict.
    """
    if not os.path.isfile(path):
        raise InputError(f"no weights file at {path}: pass a .safetensors or .pth file, default or none")
    try:
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        content = _unpickle(path)
    except Exception as error:  # any exception: foreign bytes fail in many ways
        raise _damaged(path, error) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"the weights file {path} does not hold a state dict: expected a mapping of names to tensors"
        )
    tensors = {str(key).removeprefix("module."): value for key, value in content.items()}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return WeightsFile(path, shapes, lambda names: {name: tensors[name] for name in names})


def _open_safetensors(path: Path) -> WeightsFile:
    with safe_open(path, "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in list(file.keys())}

    def read(names: list[str]) -> dict[str, Tensor]:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}

    return WeightsFile(path, shapes, read)


def _unpickle(path: Path) -> object:
    archive = zipfile.is_zipfile(path)
    if archive:
        _check_archive(path)
    else:
        with open(path, "rb") as file:
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch may warn about foreign bytes; the error is enough
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _check_archive(path: Path) -> None:
    """Refuses an archive that would grow when unpacked, or that holds anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len({*names}) != len(names) or any(member.compress_type for member in members):
            raise InputError("it is packed in a way that PyTorch never uses")
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > _LARGEST_PICKLE:
                    raise InputError("its table of contents is too large")
                with archive.open(member) as file:
                    _check_pickle(file)


def _check_pickle(file: IO[bytes]) -> None:
    for opcode, argument, _ in pickletools.genops(file):
        named = opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL")
        if named and not (isinstance(argument, str) and _TENSORS.fullmatch(argument)):
            raise InputError(f"it holds {ascii(argument)[:60]}, which is not part of a tensor")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"the weights file {path} is damaged or not a state dict ({first_line(error)}): pass an intact "
        ".safetensors or .pth file"
    )
