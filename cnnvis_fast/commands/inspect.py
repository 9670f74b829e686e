"""The commands that look at a network without an ascent."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .arguments import add_layers_to_choose, add_model, untrained_by_default


def add_layers(commands: Any) -> None:
    """Adds the command `layers`."""
    parser = commands.add_parser("layers", help="list the layers that pictures can be made for")
    add_model(parser, default="texturenet")
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_layers)


def run_layers(options: argparse.Namespace) -> int:
    """Prints the layers of a network."""
    from ..networks.listing import layers
    from ..networks.load import load_model

    network = load_model(options.model, untrained_by_default(options.weights))
    table = layers(network, size=options.size)
    print(json.dumps(table.as_dicts(), indent=2) if options.json else table)
    return 0


def add_measure(commands: Any) -> None:
    """Adds the command `measure`."""
    parser = commands.add_parser(
        "measure", help="measure colors and spectrum of a folder of photos, for --statistics"
    )
    parser.add_argument("folder", metavar="DIR", help="folder of photos")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="file to write")
    parser.add_argument("--size", type=int, default=224, help="side of the photos in pixels (default: 224)")
    parser.set_defaults(run=run_measure)


def run_measure(options: argparse.Namespace) -> int:
    """Measures the photos and prints the path of the file."""
    from ..inspection.natural_statistics import measure_statistics

    measure_statistics(options.folder, options.out, options.size)
    print(options.out)
    return 0


def add_filters(commands: Any) -> None:
    """Adds the command `filters`."""
    parser = commands.add_parser("filters", help="show the weights of a convolution as a grid of pictures")
    add_model(parser)
    parser.add_argument("layer", help="module name or convN")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="file to write")
    parser.add_argument("--filters", metavar="0-63,100", help="filters to show (default: all)")
    parser.add_argument("--view", default="auto", help="auto, rgb, mean or channel (default: auto)")
    parser.add_argument("--channel", type=int, help="input channel to show (default: depends on the view)")
    parser.add_argument(
        "--scale", help="scale of the values: each or common (default: each for rgb, else common)"
    )
    parser.set_defaults(run=run_filters)


def run_filters(options: argparse.Namespace) -> int:
    """Writes the grid and prints its path."""
    from ..inspection.filter_weights import check_png_name, filter_weights

    check_png_name(options.out)
    names = ("filters", "weights", "view", "channel", "scale")
    chosen = {name: getattr(options, name) for name in names}
    filter_weights(options.model, options.layer, **chosen).save(options.out)
    print(options.out)
    return 0


def add_activations(commands: Any) -> None:
    """Adds the command `activations`."""
    parser = commands.add_parser("activations", help="show how the channels of layers respond to a photo")
    add_model(parser)
    parser.add_argument("image", metavar="IMAGE", help="path of a photo, or the word noise")
    add_layers_to_choose(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write one sheet per layer to")
    parser.add_argument(
        "--follow", type=int, metavar="N", help="write one more sheet, with channel N of every layer"
    )
    parser.add_argument(
        "--resize", default="weights", help="how to resize: weights or squeeze (default: weights)"
    )
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--scale", default="each", help="scale of the values: each or common (default: each)")
    parser.add_argument(
        "--chained", action="store_true", help="run the convolutions alone, without ReLU and pooling"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    parser.set_defaults(run=run_activations)


def run_activations(options: argparse.Namespace) -> int:
    """Writes the sheets and prints their paths."""
    from ..images.photos import noise_image, read_photo
    from ..inspection.activation_maps import activation_maps, chained_convolutions
    from ..networks.load import load_model
    from ..networks.preprocessing import describe

    noise = options.image == "noise"
    picture = None if noise else read_photo(options.image)  # before weights are downloaded in vain
    network = load_model(options.model, options.weights)
    if picture is None:
        picture = noise_image(options.size or describe(network).size, options.seed)
    collect = chained_convolutions if options.chained else activation_maps
    maps = collect(network, picture, options.layers, resize=options.resize, size=options.size)
    for path in maps.save(options.out, follow=options.follow, scale=options.scale):
        print(path)
    return 0


def add_onnx(commands: Any) -> None:
    """Adds the command `onnx`."""
    parser = commands.add_parser("onnx", help="export to ONNX and compare the feature maps layer by layer")
    add_model(parser)
    add_layers_to_choose(parser)
    parser.add_argument("--out", required=True, metavar="FILE.onnx", help="file to write the network to")
    parser.add_argument("--json", metavar="FILE", help="file to write the report to, as JSON")
    parser.add_argument("--size", type=int, help="side of the input in pixels")
    parser.add_argument("--compile", action="store_true", help="compare under torch.compile too (slow)")
    parser.set_defaults(run=run_onnx)


def run_onnx(options: argparse.Namespace) -> int:
    """Exports, compares and prints the report; returns 1 if a layer differs."""
    from ..inspection.onnx.check import check_onnx

    report = check_onnx(
        options.model,
        options.layers,
        options.out,
        json_path=options.json,
        weights=options.weights,
        size=options.size,
        compile=options.compile,
    )
    print(report)
    print(report.summary())
    return 0 if report.ok else 1
