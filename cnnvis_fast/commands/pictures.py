"""The commands that make pictures: `maximize`, `atlas` and `reproduce-original`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import add_model, add_picture_options, picture_options, untrained_by_default

if TYPE_CHECKING:
    from ..objectives.vocabulary import Objective

_ENGINE = ("engine", "address", "workers", "threads")


def add_maximize(commands: Any) -> None:
    """Adds the command `maximize`."""
    parser = commands.add_parser("maximize", help="make pictures of filters of one layer, or of objectives")
    add_model(parser)
    parser.add_argument(
        "layer",
        nargs="+",
        help="module name, convN or logits; or objectives: layer:unit, 'layer:unit + 0.5*layer:unit', ...",
    )
    parser.add_argument("--photo", metavar="IMAGE", help="photo for caricature(layer) and inversion(layer)")
    add_picture_options(parser, out_default=None)
    parser.set_defaults(run=run_maximize)


def run_maximize(options: argparse.Namespace) -> int:
    """Makes pictures of channels of one layer, in the folder of an atlas, or of objectives."""
    from ..jobs.maximize import plain_channels
    from ..objectives.text import parse, reads_as_objective

    layers: list[str] = options.layer
    if len(layers) == 1 and not reads_as_objective(layers[0]):
        return _make(options, layers, options.filters)
    objectives = [parse(text, options.photo) for text in layers]
    if options.filters is not None:
        raise InputError("--filters are channels of a layer: leave them out where objectives are given")
    one_layer = plain_channels(objectives)
    if one_layer is None:
        return _make_objectives(options, objectives)
    return _make(options, [one_layer[0]], one_layer[1])


def add_atlas(commands: Any) -> None:
    """Adds the command `atlas`."""
    parser = commands.add_parser("atlas", help="make pictures of whole layers; run it again to resume")
    add_model(parser, default="texturenet")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--layer",
        action="append",
        dest="layers",
        metavar="NAME",
        help="layer name, repeatable (default: the last convolution)",
    )
    group.add_argument("--all-layers", action="store_true", help="every convolution")
    add_picture_options(parser, out_default="atlas")
    parser.add_argument(
        "--engine",
        default="local",
        help="local, or ray for every GPU of a machine or all machines of a cluster (default: local)",
    )
    parser.add_argument(
        "--address", help="address of a running Ray cluster, or auto (default: start one on this machine)"
    )
    parser.add_argument(
        "--workers", type=int, help="number of Ray workers (default: one per GPU, else by CPUs)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: 1 with Ray)")
    parser.set_defaults(run=run_atlas)


def run_atlas(options: argparse.Namespace) -> int:
    """Makes the missing tiles of whole layers."""
    engine = {name: getattr(options, name) for name in _ENGINE}
    return _make(options, "all" if options.all_layers else options.layers, options.filters, **engine)


def add_reproduce_original(commands: Any) -> None:
    """Adds the command `reproduce-original`."""
    parser = commands.add_parser(
        "reproduce-original", help="make the table of pictures of the original repository"
    )
    parser.add_argument(
        "--weights",
        default="default",
        help="weights of VGG16: PATH, none, default or a torchvision name (default: default)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the start noise (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.set_defaults(run=run_reproduce_original)


def run_reproduce_original(options: argparse.Namespace) -> int:
    """Makes the pictures and prints the path of their sheet."""
    from ..compat import reproduce_original

    weights = untrained_by_default(options.weights)
    reproduce_original(options.out, weights=weights, seed=options.seed, device=options.device)
    print(os.path.join(options.out, "sheet.png"))
    return 0


def _make(options: argparse.Namespace, layers: Any, filters: Any, **engine: Any) -> int:
    from ..jobs.atlas import atlas
    from ..page import gallery
    from ..results.diagnostics import summed_up

    result = atlas(options.model, layers, options.out, filters=filters, **picture_options(options), **engine)
    page, records = gallery(result.store.out), result.scores
    counts = Counter(record["status"] for record in records)
    sheets = {layer: str(result.store.folder(layer) / "sheet.png") for layer in result.layers}
    if options.json:
        summary = {"out": str(result.store.out), "page": str(page), "made": result.made}
        summary |= {"seconds": result.seconds, "status": counts, "sheets": sheets, "scores": records}
        print(json.dumps(summary))
        return 0
    rate = f"{result.made} pictures in {result.seconds:.1f} s"
    if result.made:
        rate += f" ({result.made / result.seconds:.2f} pictures/s)"
    print(f"{rate}; status: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
    report = summed_up(records)
    if not report.ok:
        print(report, file=sys.stderr)
    print(*sheets.values(), page, sep="\n")
    return 0


def _make_objectives(options: argparse.Namespace, objectives: list[Objective]) -> int:
    from ..jobs.maximize import maximize
    from ..page import gallery

    pictures = maximize(options.model, objectives, **picture_options(options))
    pictures.save(options.out)
    page = gallery(options.out)
    print(pictures.report(), file=sys.stderr)
    if options.json:
        print(json.dumps({"out": options.out, "page": str(page), "scores": pictures.records()}))
    else:
        print(os.path.join(options.out, pictures.layer, "sheet.png"), page, sep="\n")
    return 0
