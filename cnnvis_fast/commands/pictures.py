"""The commands that make pictures: `maximize` and `atlas`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..objectives.vocabulary import Objective

_NAMES = ("steps", "size", "seed", "batch", "device", "dtype", "compile", "kernels", "objective")
_MADE = ("parameters", "start", "statistics", "colour", "alpha")
_ENGINE = ("engine", "address", "workers", "threads")


def add_making(parser: argparse.ArgumentParser, out_default: str | None) -> None:
    """The options that both commands have."""
    required = out_default is None
    shown = "" if required else f" (default: {out_default})"
    parser.add_argument("--out", required=required, default=out_default, metavar="DIR", help=f"folder{shown}")
    parser.add_argument("--filters", metavar="0-63,100", help="channels (default: all)")
    parser.add_argument("--preset", default="natural", help="natural, strong, original (default: natural)")
    parser.add_argument("--objective", help="channel, neuron or logit (default: channel)")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--parameters", help="fourier, maco, cppn or pixel (default: the preset's)")
    parser.add_argument("--start", metavar="IMAGE", help="photo to start from (default: noise)")
    parser.add_argument("--statistics", metavar="FILE", help="colours and spectrum, from `measure`")
    parser.add_argument("--colour", help="auto, none or grey (default: auto)")
    parser.add_argument(
        "--alpha", action="store_true", default=None, help="save where each picture matters beside it"
    )
    parser.add_argument(
        "--set",
        action="append",
        dest="more",
        metavar="NAME=VALUE",
        default=[],
        help="any other option of Config, repeatable: --set blur=0.5",
    )
    for name, meaning in (
        ("steps", "gradient steps"),
        ("size", "side in pixels"),
        ("seed", "of all random numbers"),
    ):
        parser.add_argument(f"--{name}", type=int, help=meaning)
    parser.add_argument("--batch", type=int, help="pictures that run together (default: chosen)")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--dtype", help="of the network: auto, float32 or bfloat16 (default: auto)")
    parser.add_argument("--kernels", help="auto, reference, cpu-avx512, cpu-avx2, cpu-baseline or triton")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="run the step under torch.compile"
    )


def run_maximize(options: argparse.Namespace) -> int:
    """Makes pictures of channels of one layer as an atlas does, or of objectives."""
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


def run_atlas(options: argparse.Namespace) -> int:
    """Makes what is missing of whole layers."""
    engine = {name: getattr(options, name) for name in _ENGINE}
    return _make(options, "all" if options.all_layers else options.layers, options.filters, **engine)


def _make(options: argparse.Namespace, layers: Any, filters: Any, **engine: Any) -> int:
    from ..jobs.atlas import atlas
    from ..page import gallery
    from ..results.diagnostics import summed_up

    result = atlas(options.model, layers, options.out, filters=filters, **_chosen(options), **engine)
    page, records = gallery(result.store.out), result.scores
    counts = Counter(record["status"] for record in records)
    sheets = {layer: str(result.store.folder(layer) / "sheet.png") for layer in result.layers}
    if options.json:
        told = {"out": str(result.store.out), "page": str(page), "made": result.made}
        told |= {"seconds": result.seconds, "status": counts, "sheets": sheets, "scores": records}
        print(json.dumps(told))
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

    pictures = maximize(options.model, objectives, **_chosen(options))
    pictures.save(options.out)
    page = gallery(options.out)
    print(pictures.report(), file=sys.stderr)
    if options.json:
        print(json.dumps({"out": options.out, "page": str(page), "scores": pictures.records()}))
    else:
        print(os.path.join(options.out, pictures.layer, "sheet.png"), page, sep="\n")
    return 0


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in (*_NAMES, *_MADE, "weights", "preset")}
    return chosen | _more(options.more)


def _more(pairs: Sequence[str]) -> dict[str, object]:
    """Options given as NAME=VALUE; values read as JSON where they are, else as text."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InputError(f"cannot read the option {pair!r}: expected NAME=VALUE, like blur=0.5")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
