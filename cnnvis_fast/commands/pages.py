"""The commands `gallery` and `patches`, and what every command shares: shell completion, logging."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

from ..errors import InputError


def add_gallery(commands: Any) -> None:
    """The options of `gallery`."""
    page = commands.add_parser("gallery", help="write the page of an atlas anew, with a photo if wanted")
    page.add_argument("dir", metavar="DIR", help="folder of an atlas")
    page.add_argument("--photo", metavar="IMAGE", help="show what every unit answers to it")
    page.add_argument(
        "--weights", help="for the photo: PATH, none, default or torchvision's (default: the atlas's)"
    )


def add_patches(commands: Any) -> argparse.ArgumentParser:
    """The options of `patches`, but for the model."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "patches", help="the patches of a folder's pictures that fire each unit most"
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--layer", action="append", dest="layers", metavar="NAME", help="repeatable (default: convolutions)"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder; that of an atlas gets them on its page"
    )
    parser.add_argument("--k", type=int, default=9, help="patches a unit (default: 9)")
    parser.add_argument(
        "--shard", default="0/1", metavar="I/N", help="every N-th picture from the I-th, from 0"
    )
    parser.add_argument("--resize", default="weights", help="weights or squeeze (default: weights)")
    parser.add_argument("--size", type=int, help="side in pixels")
    parser.add_argument("--batch", type=int, default=8, help="pictures that run together (default: 8)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser


def add_completion(parser: argparse.ArgumentParser) -> None:
    """`--print-completion SHELL`, by shtab."""
    try:
        import shtab
    except ImportError:
        parser.add_argument("--print-completion", action=_NoCompletion, help="needs the extra completion")
    else:
        shtab.add_argument_to(parser, ["--print-completion"], help="a script for shell completion")


class _NoCompletion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("shell completion needs shtab: pip install 'cnnvis_fast[completion]'")


def show_log(verbose: bool) -> None:
    """Sends what the package logs to stderr, if wanted."""
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger = logging.getLogger("cnnvis_fast")
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)


def run_gallery(options: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    from ..page import gallery

    if options.weights is not None and options.photo is None:
        raise InputError("--weights is for a photo: pass --photo too, or leave it out")
    print(gallery(options.dir, options.photo, weights=options.weights))
    return 0


def run_patches(options: argparse.Namespace) -> int:
    """Finds patches; prints their folders, or all of them as JSON."""
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
        raise InputError(f"cannot read the shard {text!r}: expected I/N like 0/4")
    return int(first), int(second)
