"""Writes networks as ONNX files whose outputs are feature maps, and runs them with onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import InputError, first_line
from ...networks.hooks import hooked
from ...networks.names import target_modules

INPUT, BATCH = "pictures", "batch"
"""Names in the file of its input and of the batch axis."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Raises InputError if a package that only the ONNX check needs is missing."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"the package {name} is missing or broken ({first_line(error)}): "
                "pip install 'cnnvis_fast[onnx]'"
            ) from error


def feature_maps(model: nn.Module, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Returns the outputs of some layers, each from its first run, in the order in which they run.

    Args:
        model: the network in eval mode.
        names: dotted names or `logits`; each layer must run and yield a tensor.
        x: [B, C, H, W], as the network reads it.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, output: Tensor) -> None:
        if name not in maps:
            maps[name] = output.clone()  # because an in-place activation may overwrite the output

    with hooked(target_modules(model, names), keep):
        model(x.clone())
    return maps


class _FeatureMaps(nn.Module):
    """`feature_maps` as a module, which the exporter requires."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(feature_maps(self.model, self.names, x).values())


def export(model: nn.Module, names: Sequence[str], example: Tensor, path: Path) -> None:
    """Writes a network up to some layers as an ONNX file, for any number of pictures of one size.

    Above 2 GB, the format's limit, the weights go into a second file next to it, `path` plus `.data`.

    Args:
        model: the network in float32, on the CPU, in eval mode.
        names: names of the layers, in the order in which they run; the file's outputs have these names.
        example: pictures [B, C, H, W] as the network reads them; B is at least 2, because the exporter treats
            1 as fixed.
        path: path of the file.

    Raises:
        InputError: the exporter cannot take the network, or the file cannot be written.
    """
    with _quiet():
        try:
            program = torch.onnx.export(
                _FeatureMaps(model, names).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_shapes=({0: BATCH},),
            )
        except Exception as error:  # any exception: exporting runs the user's code on stand-ins for tensors
            raise InputError(
                f"{type(model).__name__} cannot be exported ({first_line(error.__cause__ or error)}): "
                "it must consist of operations that ONNX has, whatever the pictures and their number"
            ) from error
        if program is None:
            raise InputError(
                f"{type(model).__name__} cannot be exported: the exporter returned nothing; run it first"
            )
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # they hold stack traces with paths of this machine
        program.save(path)


def run(path: Path, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Runs an ONNX file on pictures [B, C, H, W] with onnxruntime on the CPU, with torch's thread count.

    Raises:
        InputError: onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # logs nothing: errors are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = session.run(list(names), {INPUT: x.numpy()})
    except Exception as error:  # any exception: the runtime's own have no base of their own
        raise InputError(f"onnxruntime does not run the exported network ({first_line(error)})") from error
    return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}


@contextlib.contextmanager
def staged(path: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Provides a temporary path whose file, and those next to it, move to `path` if the block succeeds.

    It is in the same file system, so a reader never sees half a file. If `path` is None, it is deleted.

    Raises:
        InputError: `path` cannot be written; raised at the start if that is already known.
    """
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "network.onnx"
        return
    final = Path(path)
    if not final.name or final.is_dir():
        raise InputError(f"cannot write to {str(path)!r}, which is not a file's name: pass one")
    above = next(folder for folder in final.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=above) as folder:
            yield Path(folder) / final.name
            final.parent.mkdir(parents=True, exist_ok=True)
            # The file itself is moved last: once it exists, everything does.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == final.name):
                file.replace(final.parent / file.name)
    except OSError as error:
        raise InputError(
            f"cannot write to {final} ({error.strerror or first_line(error)}): make room or pass another "
            "file's name"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the messages that the exporter prints and logs."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
