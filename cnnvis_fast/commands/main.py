"""The command line.

Exit codes: 0 done, 1 a check failed or nobody reads the output, 2 a wrong argument or no room, 130
interrupted (Ctrl-C), 143 terminated (SIGTERM).

What takes long to import (torch) is imported by the command that needs it: help and completion are quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import InputError
from . import pages, pictures


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: what Ctrl-C leaves behind is left behind."""


class _Parser(argparse.ArgumentParser):
    """Answers a wrong argument with one sentence instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_sentence(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cnnvis-fast", description="See what the filters of a convolutional network look for."
    )
    parser.add_argument("--version", action="version", version=f"cnnvis-fast {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log what is done to stderr")
    pages.add_completion(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("layers", help="list what can be visualized")
    _add_model(listing, default="texturenet")
    listing.add_argument("--size", type=int, help="side of the input in pixels")
    listing.add_argument("--json", action="store_true", help="print JSON")

    single = commands.add_parser("maximize", help="pictures of some filters of one layer")
    _add_model(single)
    single.add_argument(
        "layer",
        nargs="+",
        help="dotted name, convN or logits; or objectives: layer:unit, 'layer:unit + 0.5*layer:unit', ...",
    )
    single.add_argument("--photo", metavar="IMAGE", help="photo of caricature(layer) and inversion(layer)")
    pictures.add_making(single, out_default=None)

    whole = commands.add_parser("atlas", help="pictures of whole layers; run again, it goes on")
    _add_model(whole, default="texturenet")
    group = whole.add_mutually_exclusive_group()
    group.add_argument(
        "--layer", action="append", dest="layers", metavar="NAME", help="may be given repeatedly"
    )
    group.add_argument("--all-layers", action="store_true", help="every convolution")
    pictures.add_making(whole, out_default="atlas")
    whole.add_argument(
        "--engine", default="local", help="local or ray: every GPU, or all of a cluster's machines"
    )
    whole.add_argument("--address", help="of a running Ray cluster, or auto (default: one of its own here)")
    whole.add_argument("--workers", type=int, help="of Ray (default: one a GPU, else by CPUs)")
    whole.add_argument("--threads", type=int, help="CPU threads of each process (default: 1 with Ray)")

    natural = commands.add_parser(
        "measure", help="colours and spectrum of a folder of photos, for --statistics"
    )
    natural.add_argument("folder", metavar="DIR", help="folder of photos")
    natural.add_argument("--out", required=True, metavar="FILE.safetensors", help="the statistics")
    natural.add_argument("--size", type=int, default=224, help="side in pixels (default: 224)")

    grid = commands.add_parser("filters", help="the weights of a convolution as a grid of pictures")
    _add_model(grid)
    grid.add_argument("layer", help="dotted name or convN")
    grid.add_argument("--out", required=True, metavar="FILE.png", help="the grid")
    grid.add_argument("--filters", metavar="0-63,100", help="numbers (default: all)")
    grid.add_argument("--view", default="auto", help="auto, rgb, mean or channel (default: auto)")
    grid.add_argument("--channel", type=int, help="input channel to show (default: by the view)")
    grid.add_argument("--scale", help="each or common (default: each for rgb, else common)")

    maps = commands.add_parser("activations", help="what the channels of layers answer to a photo")
    _add_model(maps)
    maps.add_argument("image", metavar="IMAGE", help="a photo's path, or the word noise")
    maps.add_argument(
        "--layer", action="append", dest="layers", metavar="NAME", help="repeatable (default: convolutions)"
    )
    maps.add_argument("--out", required=True, metavar="DIR", help="folder of one sheet a layer")
    maps.add_argument("--follow", type=int, metavar="N", help="one more sheet: channel N of all layers")
    maps.add_argument("--resize", default="weights", help="weights or squeeze (default: weights)")
    maps.add_argument("--size", type=int, help="side in pixels")
    maps.add_argument("--scale", default="each", help="each or common (default: each)")
    maps.add_argument("--chained", action="store_true", help="convolutions alone, no ReLU and no pooling")
    maps.add_argument("--seed", type=int, default=0, help="of the noise")

    proof = commands.add_parser("onnx", help="export to ONNX and compare the feature maps layer by layer")
    _add_model(proof)
    proof.add_argument(
        "--layer",
        action="append",
        dest="layers",
        metavar="NAME",
        help="repeatable (default: every convolution)",
    )
    proof.add_argument("--out", required=True, metavar="FILE.onnx", help="the exported network")
    proof.add_argument("--json", metavar="FILE", help="the report as JSON")
    proof.add_argument("--size", type=int, help="side of the input in pixels")
    proof.add_argument("--compile", action="store_true", help="compare under torch.compile too (slow)")

    table = commands.add_parser("reproduce-original", help="the picture table of the original repository")
    table.add_argument("--weights", default="default", help="of VGG16: PATH, none, default or torchvision's")
    table.add_argument("--out", required=True, metavar="DIR", help="folder")
    table.add_argument("--seed", type=int, default=0, help="of the noise that pictures start from")
    table.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")

    pages.add_gallery(commands)
    _add_model(pages.add_patches(commands))

    doctor = commands.add_parser("doctor", help="tell versions, devices and kernel backends")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    text = "texturenet, a classification model of torchvision, or timm/NAME"
    if default:
        parser.add_argument(
            "model", nargs="?", default=default, metavar="MODEL", help=f"{text} (default: {default})"
        )
    else:
        parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("--weights", default="default", help="PATH, none, default or a name of torchvision's")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(command=None)
    try:
        _parser().parse_args(arguments, options)
        warnings.showwarning = _show_warning
        pages.show_log(options.verbose)
        logging.getLogger("torch").setLevel(logging.ERROR)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it cannot read, we say ourselves
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files may be no text
                stream.reconfigure(errors="backslashreplace")
        with _sigterm_interrupts():
            code = _run(options)
        sys.stdout.flush()  # here, where a reader who has left is noticed
        return code
    except InputError as error:
        print(f"cnnvis-fast: {_sentence(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as interruption:
        terminated = isinstance(interruption, _Terminated)
        resumable = options.command in ("maximize", "atlas")
        command = shlex.join(["cnnvis-fast", *map(str, arguments)])
        hint = f"; finished tiles are kept, go on with: {command}" if resumable else ""
        print(f"cnnvis-fast: {'terminated' if terminated else 'interrupted'}{hint}", file=sys.stderr)
        return 143 if terminated else 130


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """While open, SIGTERM raises an exception as Ctrl-C does, so that work ends in order."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return

    def terminate(*_: Any) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"cnnvis-fast: note: {_sentence(message)}", file=sys.stderr)


def _sentence(message: object) -> str:
    """A message on one line, without commands to the terminal that names may hold, and of bounded length."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(message))
    return text if len(text) <= 800 else f"{text[:500]} ... {text[-250:]}"


def _run(options: argparse.Namespace) -> int:
    if options.command == "doctor":
        from .doctor import facts, report

        print(json.dumps(dict(facts()), indent=2) if options.json else report())
        return 0
    if options.command == "layers":
        from ..networks.listing import layers
        from ..networks.load import load_model

        table = layers(load_model(options.model, _untrained(options)), size=options.size)
        print(json.dumps(table.as_dicts(), indent=2) if options.json else table)
        return 0
    if options.command == "gallery":
        return pages.run_gallery(options)
    if options.command == "patches":
        return pages.run_patches(options)
    if options.command == "filters":
        return _filters(options)
    if options.command == "activations":
        return _activations(options)
    if options.command == "onnx":
        return _onnx(options)
    if options.command == "reproduce-original":
        from ..compat import reproduce_original

        reproduce_original(options.out, weights=_untrained(options), seed=options.seed, device=options.device)
        print(os.path.join(options.out, "sheet.png"))
        return 0
    if options.command == "measure":
        from ..inspection.natural_statistics import measure_statistics

        measure_statistics(options.folder, options.out, options.size)
        print(options.out)
        return 0
    if options.command == "maximize":
        return pictures.run_maximize(options)
    return pictures.run_atlas(options)


def _filters(options: argparse.Namespace) -> int:
    from ..inspection.filter_weights import check_png_name, filter_weights

    check_png_name(options.out)
    names = ("filters", "weights", "view", "channel", "scale")
    chosen = {name: getattr(options, name) for name in names}
    filter_weights(options.model, options.layer, **chosen).save(options.out)
    print(options.out)
    return 0


def _activations(options: argparse.Namespace) -> int:
    from ..images.photos import noise_image, read_photo
    from ..inspection.activation_maps import activation_maps, chained_convolutions
    from ..networks.load import load_model
    from ..networks.preprocessing import describe

    noise = options.image == "noise"
    picture = None if noise else read_photo(options.image)  # before weights are fetched for nothing
    network = load_model(options.model, options.weights)
    if picture is None:
        picture = noise_image(options.size or describe(network).size, options.seed)
    collect = chained_convolutions if options.chained else activation_maps
    maps = collect(network, picture, options.layers, resize=options.resize, size=options.size)
    for path in maps.save(options.out, follow=options.follow, scale=options.scale):
        print(path)
    return 0


def _onnx(options: argparse.Namespace) -> int:
    from ..inspection.onnx.check import check_onnx

    proof = check_onnx(
        options.model,
        options.layers,
        options.out,
        json_path=options.json,
        weights=options.weights,
        size=options.size,
        compile=options.compile,
    )
    print(proof)
    print(proof.summary())
    return 0 if proof.ok else 1


def _untrained(options: argparse.Namespace) -> str:
    """A listing needs no trained weights: the default ones would only be downloaded to be ignored."""
    return "none" if options.weights == "default" else str(options.weights)


if __name__ == "__main__":
    sys.exit(main())
