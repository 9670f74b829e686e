"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ..errors import InputError

# Options that are passed to `maximize` and `atlas` under their own names.
_PASSED = (
    *("steps", "size", "seed", "batch", "device", "dtype", "compile", "kernels", "objective"),
    *("parameters", "start", "statistics", "color", "alpha", "weights", "preset"),
)


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds MODEL, which is optional if it has a default, and --weights."""
    text = "texturenet, efficientnet_lite0, a classification model of torchvision, or timm/NAME"
    if default:
        parser.add_argument(
            "model", nargs="?", default=default, metavar="MODEL", help=f"{text} (default: {default})"
        )
    else:
        parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument(
        "--weights", default="default", help="PATH, none, default or the name of torchvision or timm weights"
    )


def add_layers_to_choose(parser: argparse.ArgumentParser) -> None:
    """Adds --layer, which may be given several times."""
    parser.add_argument(
        "--layer",
        action="append",
        dest="layers",
        metavar="NAME",
        help="layer name, repeatable (default: every convolution)",
    )


def add_picture_options(parser: argparse.ArgumentParser, out_default: str | None) -> None:
    """Adds the options that `maximize` and `atlas` share."""
    required = out_default is None
    shown = "" if required else f" (default: {out_default})"
    parser.add_argument(
        "--out", required=required, default=out_default, metavar="DIR", help=f"folder to write to{shown}"
    )
    parser.add_argument("--filters", metavar="0-63,100", help="channels (default: all)")
    parser.add_argument("--preset", default="natural", help="natural, strong, original (default: natural)")
    parser.add_argument("--objective", help="channel, neuron or logit (default: channel)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--parameters", help="fourier, maco, cppn or pixel (default: the preset's)")
    parser.add_argument("--start", metavar="IMAGE", help="photo to start from (default: noise)")
    parser.add_argument("--statistics", metavar="FILE", help="colors and spectrum that `measure` wrote")
    parser.add_argument("--color", help="auto, none or gray (default: auto)")
    parser.add_argument("--colour", dest="color", help=argparse.SUPPRESS)
    parser.add_argument(
        "--alpha", action="store_true", default=None, help="also write a map of where each picture matters"
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
        ("steps", "number of gradient steps (default: the preset's)"),
        ("size", "side of the pictures in pixels (default: the network's input size)"),
        ("seed", "seed of all random numbers (default: 0)"),
        ("batch", "pictures that run together (default: chosen automatically)"),
    ):
        parser.add_argument(f"--{name}", type=int, help=meaning)
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--dtype", help="dtype of the network: auto, float32 or bfloat16 (default: auto)")
    parser.add_argument(
        "--kernels",
        help="auto, reference, cpu-avx512, cpu-avx2, cpu-baseline or triton (default: auto)",
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="run the step under torch.compile"
    )


def picture_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `maximize` and `atlas` as their keyword arguments."""
    return {name: getattr(options, name) for name in _PASSED} | _pairs(options.more)


def _pairs(pairs: Sequence[str]) -> dict[str, object]:
    """Returns the options given as NAME=VALUE; values are read as JSON if possible, else as text."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InputError(f"cannot read the option {pair!r}: expected NAME=VALUE, such as blur=0.5")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def untrained_by_default(weights: str) -> str:
    """Returns "none" for the default weights, so that a command that needs none downloads none."""
    return "none" if weights == "default" else weights
