"""The commands that add to an atlas's page: `gallery` and `patches`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..errors import InputError
from .arguments import add_layers_to_choose, add_model


def add_gallery(commands: Any) -> None:
    """Adds the command `gallery`."""
    parser = commands.add_parser("gallery", help="rewrite the page of an atlas, optionally with a photo")
    parser.add_argument("dir", metavar="DIR", help="folder of an atlas")
    parser.add_argument("--photo", metavar="IMAGE", help="show every unit's activation map of this photo")
    parser.add_argument(
        "--weights",
        help="weights for the photo: PATH, none, default or a torchvision name (default: the atlas's)",
    )
    parser.set_defaults(run=run_gallery)


def run_gallery(options: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from ..page import gallery

    if options.weights is not None and options.photo is None:
        raise InputError("--weights needs a photo: pass --photo too, or leave it out")
    print(gallery(options.dir, options.photo, weights=options.weights))
    return 0


def add_patches(commands: Any) -> None:
    """Adds the command `patches`."""
    parser = commands.add_parser(
        "patches", help="find the patches of a folder's photos that activate each unit most"
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of photos")
    add_layers_to_choose(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder to write to; the page of an atlas shows them",
    )
    parser.add_argument("--k", type=int, default=9, help="patches per unit (default: 9)")
    parser.add_argument(
        "--shard", default="0/1", metavar="I/N", help="read every N-th photo from the I-th on, from 0"
    )
    parser.add_argument(
        "--resize", default="weights", help="how to resize: weights or squeeze (default: weights)"
    )
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--batch", type=int, default=8, help="photos that run together (default: 8)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_model(parser)
    parser.set_defaults(run=run_patches)


def run_patches(options: argparse.Namespace) -> int:
    """Finds the patches and prints their folders, or the result as JSON."""
    from ..inspection.top_patches import top_patches
    from ..page import gallery
    from ..storage.files import plain_name

    found = top_patches(
        options.model,
        options.images,
        options.layers,
        options.out,
        k=options.k,
        shard=_shard(options.shard),
        weights=options.weights,
        resize=options.resize,
        size=options.size,
        batch=options.batch,
    )
    if found.finished and (found.out / "job.json").is_file():
        gallery(found.out)
    if options.json:
        print(json.dumps({"layers": found.finished, "skipped": found.skipped}))
        return 0
    for layer in found.layers:
        folder = found.out / plain_name(layer) / "patches"
        print(folder if layer in found.finished else f"{folder} (shards are missing)")
    return 0


def _shard(text: str) -> tuple[int, int]:
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise InputError(f"cannot read the shard {text!r}: expected I/N, such as 0/4")
    return int(first), int(second)
