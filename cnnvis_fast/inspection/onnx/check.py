"""`check_onnx`: compares the feature maps that pictures are made with to those of an independent runtime.

A network is exported to ONNX with the chosen layers as outputs and run with onnxruntime. Its feature maps are
the reference, layer by layer, for

- `eager float32`: the plain network, read by hooks;
- `trunk float32` and `trunk bfloat16`: the trunk that is cut for that layer, with BatchNorm folded, in
  channels-last format, followed by its tail in float32, as a folded objective uses it;
- `program ...`: the same trunks as programs, without autograd;
- `hooked ...` instead of `trunk ...` if the network cannot be cut, so that the whole network runs;
- `compiled ...`: the same trunks under `torch.compile`, if requested.

Tolerances per layer, as a fraction of the layer's largest absolute value: 1e-4 in float32; in bfloat16 twice
the error of the plain network in bfloat16, plus one rounding (2^-8).
"""

from __future__ import annotations

import copy
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from ...config import configure
from ...errors import InputError, first_line
from ...networks import trunk as trunks
from ...networks.digests import weights_digest
from ...networks.listing import LayerTable
from ...networks.listing import layers as list_layers
from ...networks.load import open_model
from ...networks.names import choose_layers
from ...networks.preprocessing import known_source, usual_size
from ...networks.probe import input_channels
from ...networks.trunk import DTYPES
from ...program import make_program
from ...progress import hidden
from .export import export, feature_maps, require_packages, run, staged
from .report import Difference, OnnxReport, difference

FLOAT32_LIMIT = 1e-4
BFLOAT16_FACTOR, BFLOAT16_ROUNDING = 2.0, 2.0**-8
_PICTURES = 2
_EXPORTED = 3  # pictures in the export's example; another number is run, which proves that the number is free


def check_onnx(
    model: nn.Module | str,
    layers: Sequence[str] | str | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    json_path: str | os.PathLike[str] | None = None,
    weights: Any = "DEFAULT",
    size: int | None = None,
    compile: bool = False,
    progress: bool | None = None,
) -> OnnxReport:
    """Exports a network to ONNX and compares its feature maps, layer by layer, with those of the engine.

    Everything runs on the CPU, on two random pictures. Files are written completely, at the end, or not at
    all.

    Args:
        model: a network, or a name that `load_model` accepts. It is never changed.
        layers: names of layers; None or "all" for every convolution that runs.
        path: path of the ONNX file, whose outputs are named after the layers; None keeps no file.
        json_path: path of the report as JSON; None writes no report.
        weights: weights of a network given by name, as for `load_model`.
        size: side of the pictures in pixels, default the network's own; where it is not known, 224, or else
            the first usual size at which the network runs.
        compile: whether to compare the trunks under `torch.compile` too; slow, as each is compiled.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        InputError: (a ValueError) an argument is wrong, a package is missing, the network cannot be exported,
            or a file cannot be written; no file was written.
    """
    require_packages()
    network = open_model(model, weights)
    known, channels = known_source(network), input_channels(network)
    size = configure(size=size).size or usual_size(network, channels, known)
    names = _chosen(network, layers, list_layers(network, size=size, channels=channels))
    if None not in (path, json_path) and os.path.abspath(str(path)) == os.path.abspath(str(json_path)):
        raise InputError(f"the ONNX file and the JSON report cannot both be {path}: pass two names")
    with (
        staged(path) as onnx_file,
        staged(json_path) as json_file,
        tqdm(total=len(names) + 2, unit=" steps", disable=hidden(progress)) as bar,
        torch.no_grad(),
    ):
        differences = _differences(network, names, _pictures(channels, size), onnx_file, compile, bar)
        name, kind = (known.name, known.weights) if known else (type(network).__name__, "given")
        report = OnnxReport(name, kind, weights_digest(network), size, differences)
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    return report


def _chosen(model: nn.Module, layers: Sequence[str] | str | None, table: LayerTable) -> list[str]:
    """Returns canonical names of the layers asked for, in the order in which they run.

    A convolution that does not run is an error only if it was asked for by name.
    """
    wanted = choose_layers(model, layers)
    listed = [row.name for row in table]
    missing = [name for name in wanted if name not in listed]
    by_name = layers is not None and layers not in ("all", [], ())
    if missing and (by_name or len(missing) == len(wanted)):
        raise InputError(
            f"{missing[0]!r} yields no maps or vectors of its own: pick layers that `layers` lists"
        )
    return [name for name in listed if name in wanted]


def _pictures(channels: int, size: int) -> Tensor:
    """Returns normalized pictures of coarse blobs and fine noise, always the same: [2, C, size, size]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(_PICTURES, channels, size // 8, size // 8, generator=generator)
    fine = torch.randn(_PICTURES, channels, size, size, generator=generator)
    return interpolate(coarse, size=(size, size), mode="bicubic") + 0.3 * fine


def _differences(
    network: nn.Module, names: Sequence[str], x: Tensor, path: Path, compile: bool, bar: tqdm[Any]
) -> list[Difference]:
    plain = trunks.frozen_copy(network)
    bar.set_description("export")
    export(plain, names, x[:1].repeat(_EXPORTED, 1, 1, 1), path)
    bar.update()
    bar.set_description("whole network")
    reference = run(path, names, x)
    eager = feature_maps(plain, names, x)
    rough = _bfloat16_errors(plain, reference, x)
    bar.update()
    rows = []
    for name in names:
        bar.set_description(name)
        limits = {"float32": FLOAT32_LIMIT}
        if rough:
            limits["bfloat16"] = BFLOAT16_FACTOR * rough[name] + BFLOAT16_ROUNDING
        expected = reference.pop(name)
        rows.append(difference(name, "eager float32", eager.pop(name), expected, FLOAT32_LIMIT))
        trunk = trunks.cut(network, name, x[:1])
        for compared, found in _trunk_outputs(trunk, name, list(limits), x, compile):
            rows.append(difference(name, compared, found, expected, limits[compared.split()[1]]))
        bar.update()
    return rows


def _trunk_outputs(
    trunk: trunks.Trunk, name: str, dtypes: Sequence[str], x: Tensor, compile: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yields the name and the output of each way in which the engine may run a trunk."""
    way = "trunk" if trunk.traced else "hooked"
    if compile and way == "hooked":
        raise InputError(f"the network cannot be traced up to {name}, so it cannot be compiled: drop compile")
    for dtype in dtypes:
        module, typed = trunks.to_device(trunk, DTYPES[dtype], x.device), x.to(DTYPES[dtype])
        try:
            output = _output(module, trunk, typed)
        except Exception as error:  # any exception: this is the user's network
            if dtype == "float32":
                raise
            _warn_of_bfloat16(name, error)
            continue
        yield f"{way} {dtype}", output
        if trunk.traced:
            try:
                output = _program_output(module, trunk, typed)
            except Exception as error:  # any exception: rules run on the user's network
                warnings.warn(f"{name} does not run as a program ({first_line(error)})", stacklevel=2)
            else:
                yield f"program {dtype}", output
        if compile:
            try:
                output = _output(torch.compile(module, fullgraph=True, dynamic=False), trunk, typed)
            except Exception as error:  # any exception: compilers fail in many ways
                raise InputError(
                    f"the trunk of {name} cannot be compiled ({first_line(error)}): drop compile"
                ) from error
            yield f"compiled {dtype}", output


def _output(module: Any, trunk: trunks.Trunk, x: Tensor) -> Tensor:
    h = module(x.clone(memory_format=torch.channels_last)).float()  # as the first step may be in place
    return h if trunk.tail is None else trunk.tail(h)


def _program_output(module: nn.Module, trunk: trunks.Trunk, x: Tensor) -> Tensor:
    example = x[:1].contiguous(memory_format=torch.channels_last)
    program = make_program(module, example, None, trunk.module)
    return _output(lambda x: program(x)[0], trunk, x)


def _bfloat16_errors(plain: nn.Module, reference: dict[str, Tensor], x: Tensor) -> dict[str, float]:
    """Returns `max_relative` of the plain network in bfloat16 per layer; {} if it does not run."""
    try:
        maps = feature_maps(copy.deepcopy(plain).bfloat16(), list(reference), x.bfloat16())
    except Exception as error:  # any exception: this is the user's network
        _warn_of_bfloat16(type(plain).__name__, error)
        return {}
    return {
        name: difference(name, "", output, reference[name], math.inf).max_relative
        for name, output in maps.items()
    }


def _warn_of_bfloat16(what: str, error: Exception) -> None:
    warnings.warn(f"{what} does not run in bfloat16 ({first_line(error)}): checked in float32", stacklevel=2)
