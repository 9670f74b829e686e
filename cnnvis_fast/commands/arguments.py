"""Arguments that several commands share."""

from __future__ import annotations

import argparse


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds MODEL, which is optional if it has a default, and --weights."""
    text = "texturenet, a classification model of torchvision, or timm/NAME"
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


def untrained_by_default(weights: str) -> str:
    """Returns "none" for the default weights, so that a command that needs none downloads none."""
    return "none" if weights == "default" else weights
