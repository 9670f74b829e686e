"""Networks as ONNX files whose outputs are feature maps, and the runtime that reads them back."""

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
"""Names in the file: of its input, and of the first axis of everything."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Raises InputError where a package is missing that only this needs."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"the package {name} is missing or broken ({first_line(error)}): "
                "pip install 'cnnvis_fast[onnx]'"
            ) from error


def feature_maps(model: nn.Module, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """What a network yields at some layers, where each runs first, in the order in which they run.

    Args:
        model: in eval mode.
        names: dotted names or `logits`; each must run and yield a tensor.
        x: [B, C, H, W], as the network reads it.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, output: Tensor) -> None:
        if name not in maps:
            maps[name] = output.clone()  # because an in-place activation overwrites what a hook is shown

    with hooked(target_modules(model, names), keep):
        model(x.clone())
    return maps


class _FeatureMaps(nn.Module):
    """`feature_maps` as a module, which the exporter wants."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(feature_maps(self.model, self.names, x).values())


def export(model: nn.Module, names: Sequence[str], example: Tensor, path: Path) -> None:
    """Writes a network up to some layers as an ONNX file, for any number of pictures of one size.

    Above 2 GB, the format's limit, the weights go into a second file beside it, `path` with `.data`.

    Args:
        model: float32, on the CPU, in eval mode.
        names: of the layers, in the order in which they run; the file's outputs bear these names.
        example: pictures [B, C, H, W] as the network reads them; B at least 2, lest it be taken for fixed.
        path: of the file.

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
                "it must consist of operations that ONNX has, whatever and how many the pictures are"
            ) from error
        if program is None:
            raise InputError(f"{type(model).__name__} cannot be exported: the exporter gave nothing")
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces with the paths of this machine
        program.save(path)


def run(path: Path, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """The outputs of an ONNX file on pictures [B, C, H, W], by onnxruntime on the CPU with torch's threads.

    Raises:
        InputError: onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = session.run(list(names), {INPUT: x.numpy()})
    except Exception as error:  # any exception: the runtime's own have no base of their own
        raise InputError(f"onnxruntime does not run the exported network ({first_line(error)})") from error
    return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}


@contextlib.contextmanager
def staged(path: str | os.PathLike[str] | None) -> Iterator[Path]:
    """A place for a file that moves to `path`, with what lies beside it, once the block has ended well.

    The place is in the same file system, so a reader never meets half a file. None: it is dropped.

    Raises:
        InputError: `path` cannot be written; said at the start where it can be known.
    """
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "network.onnx"
        return
    final = Path(path)
    if not final.name or final.is_dir():
        raise InputError(f"cannot write to {str(path)!r}, which is no file's name: pass one")
    above = next(folder for folder in final.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=f".{final.name}.", dir=above) as folder:
            yield Path(folder) / final.name
            final.parent.mkdir(parents=True, exist_ok=True)
            # The file itself comes last: once it is there, all is.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == final.name):
                file.replace(final.parent / file.name)
    except OSError as error:
        raise InputError(
            f"cannot write to {final} ({error.strerror or first_line(error)}): make room or pass another "
            "file's name"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks about itself from the user."""
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
