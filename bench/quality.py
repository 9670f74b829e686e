"""Compares recipes and other tools on the same 32 units of SqueezeNet: strength, noise and pictures.

    python -m bench.quality --weights squeezenet1_0.safetensors --photo photo.jpg

Makes the pictures that `--pictures` lacks, one PNG each, so an interrupted run resumes. Then it measures all
pictures, adds a row per recipe and layer to results/quality.jsonl, writes the plot and the sheets of
docs/quality.md and prints its table. It leaves out tools that are not installed and prints a note; the
modules in bench/peers say how to install them.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

import cnnvis_fast as cv
from bench.support.grid import grid
from bench.support.measure import RESULTS, append
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.results.measures import high_frequency_share, saturated_share
from cnnvis_fast.results.scores import Scorer

UNITS: dict[str, tuple[int, ...]] = {
    "features.3.expand3x3": tuple(range(0, 64, 8)),
    "features.5.expand3x3": tuple(range(0, 128, 16)),
    "features.9.expand3x3": tuple(range(0, 192, 24)),
    "features.12.expand3x3": (1, 3, 7, 9, 12, 64, 128, 192),
}
"""Channels are evenly spaced, except for five of the last layer that other measurements use, too."""
TUNING: dict[str, tuple[int, ...]] = {
    "features.3.expand3x3": (4, 36),
    "features.5.expand3x3": (8, 72),
    "features.9.expand3x3": (12, 108),
    "features.12.expand3x3": (32, 160),
}
"""The recipes were chosen on these units only."""
_PLAIN = {"cutoff": 0.0, "saturation": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "natural": {"preset": "natural"},
    "strong": {"preset": "strong"},
    "natural (before)": {
        **_PLAIN,
        "second_moment": "image",
        "rate": 0.05,
        "decay": 1.0,
        "amplitude": 0.25,
    },
    "strong (before)": {
        **_PLAIN,
        "second_moment": "coefficient",
        "rate": 0.2,
        "decay": 1.2,
        "amplitude": 0.4,
    },
}
PEERS = {
    "lucent": "bench.peers.lucent",
    "horama-maco": "bench.peers.horama",
    "horama-fourier": "bench.peers.horama",
}
REFERENCE = "lucent"
SIZE = 224
_DOCS = Path(__file__).parents[1] / "docs"


def views(picture: Tensor) -> Tensor:
    """Returns eight views that no recipe ascends under: uint8 [C, H, W] to uint8 [8, C, H, W].

    Rotated by 25 degrees either way, at 0.7 and 1.4 of the scale (all with reflected borders), blurred with
    1.5 pixels, with normal noise of 0.1, at half the contrast, and as a JPEG of quality 30.
    """
    image = to_image(picture.numpy())
    values = np.asarray(image).astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 25.5, values.shape)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=30)
    arrays = [
        *(_warped(picture, angle, scale) for angle, scale in ((25, 1), (-25, 1), (0, 1 / 0.7), (0, 1 / 1.4))),
        np.asarray(image.filter(ImageFilter.GaussianBlur(1.5))),
        np.clip(values + noise, 0, 255),
        127.5 + (values - 127.5) / 2,
        np.asarray(Image.open(packed)),
    ]
    stack = np.stack([np.asarray(a, dtype=np.float64) for a in arrays])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).round().to(torch.uint8)


def _warped(picture: Tensor, angle: float, zoom: float) -> np.ndarray:
    turn = np.deg2rad(angle)
    matrix = zoom * torch.tensor([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
    grid = nn.functional.affine_grid(matrix[None].float(), [1, *picture.shape], align_corners=False)
    sampled = nn.functional.grid_sample(
        picture[None].float(), grid, padding_mode="reflection", align_corners=False
    )
    return sampled[0].permute(1, 2, 0).numpy()


def band_power(picture: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Returns centers (cycles per picture) and mean coefficient powers of half-octave rings, 2 to Nyquist."""
    values = picture.numpy().astype(np.float64) / 255
    power = (np.abs(np.fft.fft2(values - values.mean((1, 2), keepdims=True))) ** 2).mean(0)
    size = picture.shape[1]
    axis = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(axis[:, None], axis)
    edges = [2 * 2 ** (i / 2) for i in range(40) if 2 * 2 ** (i / 2) <= size / 2]
    rings = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(edges)]
    centers = np.sqrt(np.array(edges[:-1]) * np.array(edges[1:]))
    return centers, np.array([power[ring].mean() for ring in rings]) + 1e-12


def spectrum(picture: Tensor) -> tuple[float, float]:
    """Returns the slope of log power over log frequency (natural images: about -2) and its distance to -2.

    The distance is the root mean square deviation from a line of slope -2 over half-octave rings, in decades
    of power. It does not depend on the contrast.
    """
    centers, power = band_power(picture)
    x, y = np.log10(centers), np.log10(power)
    away = y + 2 * x
    return float(np.polyfit(x, y, 1)[0]), float((away - away.mean()).std())


def pictures_of(
    recipe: str,
    options: Mapping[str, Any],
    network: nn.Module,
    layer: str,
    channels: tuple[int, ...],
    at: Path,
) -> Tensor | None:
    """Returns pictures uint8 [N, 3, H, W] and makes missing ones; None if the tool is not installed."""
    folder = at / recipe
    folder.mkdir(parents=True, exist_ok=True)
    paths = {channel: folder / f"{layer}.{channel}.png" for channel in channels}
    missing = [channel for channel, path in paths.items() if not path.exists()]
    if missing and recipe in PEERS:
        try:
            peer = importlib.import_module(PEERS[recipe])
        except ImportError as error:
            print(f"{recipe}: left out, {error}")
            return None
        for channel in missing:
            _store(peer.picture(recipe, network, layer, channel), paths[channel])
    elif missing:
        made = cv.maximize(network, layer, missing, size=SIZE, progress=False, **options)
        for channel, pixels in zip(missing, made.pixels, strict=True):
            _store(pixels, paths[channel])
    if not channels:
        return None
    arrays = [np.asarray(Image.open(paths[channel]).convert("RGB")) for channel in channels]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def _store(pixels: Tensor, path: Path) -> None:
    half = path.with_suffix(".part")
    to_image(pixels.numpy()).save(half, "PNG")
    half.rename(path)


def measure(recipe: str, network: nn.Module, layer: str, channels: tuple[int, ...], pixels: Tensor) -> None:
    """Appends one row: every measure of every picture, in the order of the channels."""
    scorer = _scorer(network, layer)
    unseen = [
        float(scorer.scores(views(picture), [channel] * 8).mean())
        for picture, channel in zip(pixels, channels, strict=True)
    ]
    slopes, distances = zip(*(spectrum(picture) for picture in pixels), strict=True)
    measures = {
        "robust": scorer.robust_scores(pixels, channels).tolist(),
        "unseen": unseen,
        "saturated": saturated_share(pixels).tolist(),
        "high_frequency": high_frequency_share(pixels).tolist(),
        "slope": slopes,
        "distance": distances,
    }
    rounded = {name: [float(f"{value:.5g}") for value in values] for name, values in measures.items()}
    append("quality", {"recipe": recipe, "layer": layer, "channels": channels, **rounded})


@functools.cache
def _scorer(network: nn.Module, layer: str) -> Scorer:
    return Scorer(make_plan(network, layer, configure(size=SIZE, batch=1)))


def transfer(recipe: str, options: Mapping[str, Any]) -> None:
    """Appends a row: texturenet's class pictures, judged by a texturenet trained with another seed."""
    other = cv.load_model(
        "texturenet", Path(__file__).parents[1] / "tests" / "assets" / "texturenet_seed1.safetensors"
    )
    made = cv.maximize("texturenet", "logits", progress=False, **options)
    scorer = Scorer(make_plan(other, "logits", configure(batch=1, objective="logit")))
    classes = range(len(made))
    logits = torch.stack(
        [scorer.scores(made.pixels, [other_class] * len(made)) for other_class in classes], 1
    )
    agreed = logits.softmax(1).diagonal()
    append(
        "quality",
        {
            "recipe": recipe,
            "layer": "texturenet",
            "right": int((logits.argmax(1) == torch.arange(len(made))).sum()),
            "probability": round(float(agreed.mean()), 4),
        },
    )


def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the latest row of every recipe and layer."""
    path = RESULTS / "quality.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = (json.loads(line) for line in lines)
    return {(row["recipe"], row["layer"]): row for row in found}


def summary(recipe: str) -> dict[str, float] | None:
    """Returns means over all units that both the recipe and the reference have; None if there are none."""
    table, values = rows(), {}
    for layer in UNITS:
        row, reference = table.get((recipe, layer)), table.get((REFERENCE, layer))
        if not row or not reference:
            continue
        base = dict(
            zip(
                reference["channels"], zip(reference["robust"], reference["unseen"], strict=True), strict=True
            )
        )
        for index, channel in enumerate(row["channels"]):
            if channel in base:
                robust, unseen = base[channel]
                values.setdefault("units", []).append(1)
                values.setdefault("share", []).append(row["robust"][index] / robust)
                values.setdefault("beats", []).append(row["robust"][index] > robust)
                values.setdefault("unseen", []).append(row["unseen"][index] / unseen)
                for name in ("saturated", "high_frequency", "slope", "distance"):
                    values.setdefault(name, []).append(row[name][index])
    if not values:
        return None
    means = {name: float(np.mean(numbers)) for name, numbers in values.items()}
    other = table.get((recipe, "texturenet"), {})
    return {**means, "units": len(values["units"]), "transfer": other.get("probability", float("nan"))}


def table() -> str:
    """Returns the table of docs/quality.md."""
    head = (
        "| recipe | units | share of lucent | beats lucent | unseen views | saturated | high frequency "
        "| slope | distance | other seed |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    lines = []
    for recipe in [*RECIPES, *PEERS]:
        if means := summary(recipe):
            other = "-" if np.isnan(means["transfer"]) else f"{means['transfer']:.3f}"
            lines.append(
                f"| {recipe} | {means['units']} | {means['share']:.2f} | {means['beats']:.0%} "
                f"| {means['unseen']:.2f} | {means['saturated']:.3f} | {means['high_frequency']:.3f} "
                f"| {means['slope']:.2f} | {means['distance']:.2f} | {other} |"
            )
    return head + "\n".join(lines)


def plot(path: Path) -> None:
    """Plots score against noise: the search on the tuning units, and the recipes and tools on the 32 units.

    A mark's color shows the saturation. The search's rows come from `results/quality-search.jsonl`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = (RESULTS / "quality-search.jsonl").read_text().splitlines()
    search = [json.loads(line) for line in lines]
    known = {recipe: means for recipe in [*RECIPES, *PEERS] if (means := summary(recipe))}
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4.5), dpi=90, sharex=True, layout="constrained"
    )
    kinds = {"image": "o", "coefficient": "^", "mix": "s", "bandmix": "D"}
    style: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 0.3, "s": 50, "zorder": 3}
    for kind, marker in kinds.items():
        rows_of = [row for row in search if row["options"]["second_moment"] == kind]
        left.scatter(
            [row["high_frequency"] for row in rows_of],
            [row["share_of_strong_before"] for row in rows_of],
            c=[row["saturated"] for row in rows_of],
            marker=marker,
            label=f"one second moment per {kind}"
            if kind in ("image", "coefficient")
            else f"between ({kind})",
            **style,
        )
    marks = right.scatter(
        [means["high_frequency"] for means in known.values()],
        [means["share"] for means in known.values()],
        c=[means["saturated"] for means in known.values()],
        **style,
    )
    for recipe, means in known.items():
        at = (means["high_frequency"], means["share"])
        right.annotate(recipe, at, xytext=(6, 5), textcoords="offset points")
    left.set(title="search: 8 other units", ylabel="robust score, share of the former `strong`")
    right.set(title="32 units", ylabel="robust score, share of lucent's")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.axvline(0.05, color="0.8", lw=1)
        axes.set_xlabel("share of power above 0.25 cycles/px")
    figure.colorbar(marks, ax=right, label="saturated share of values")
    figure.savefig(path)


def side_by_side(at: Path, path: Path) -> None:
    """Writes a sheet with one row per recipe and two units of each layer."""
    units = [(layer, channels[index]) for layer, channels in UNITS.items() for index in (0, 4)]
    shown = [name for name in [*RECIPES, *PEERS] if (at / name).is_dir()]
    names = {f"{layer.split('.')[1]}:{channel}": f"{layer}.{channel}.png" for layer, channel in units}
    grid(
        {recipe: {name: _opened(at / recipe / file) for name, file in names.items()} for recipe in shown},
        path,
    )


def gallery(recipe: str, at: Path, path: Path) -> None:
    """Writes a sheet of all 32 units of one recipe, a row of eight per layer."""
    folder = at / recipe
    grid(
        {
            layer: {str(c): _opened(folder / f"{layer}.{c}.png") for c in channels}
            for layer, channels in UNITS.items()
        },
        path,
    )


def _opened(path: Path) -> Image.Image | None:
    return Image.open(path) if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares recipes and other tools on the same units.")
    parser.add_argument("--weights", type=Path, required=True, help="weights of squeezenet1_0 (safetensors)")
    parser.add_argument("--pictures", type=Path, default=Path("out/quality"), help="folder of the pictures")
    parser.add_argument("--photo", type=Path, help="a photo; prints its noise and spectrum")
    parser.add_argument("--recipes", default=",".join([*RECIPES, *PEERS]), help="names, separated by commas")
    parser.add_argument("--measure-only", action="store_true", help="measure existing pictures, make none")
    asked = parser.parse_args()
    network = cv.load_model("squeezenet1_0", asked.weights)
    for recipe in filter(None, asked.recipes.split(",")):
        for layer, channels in UNITS.items():
            if asked.measure_only:
                files = ((asked.pictures / recipe / f"{layer}.{c}.png", c) for c in channels)
                channels = tuple(channel for file, channel in files if file.exists())
            pixels = pictures_of(recipe, RECIPES.get(recipe, {}), network, layer, channels, asked.pictures)
            if pixels is None:
                break
            measure(recipe, network, layer, channels, pixels)
        if recipe in RECIPES and not asked.measure_only:
            transfer(recipe, RECIPES[recipe])
    if asked.photo:
        picture = Image.open(asked.photo).convert("RGB")
        side = min(picture.size)
        square = picture.crop((0, 0, side, side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)
        slope, distance = spectrum(pixels)
        print(
            f"photo: saturated {float(saturated_share(pixels[None])):.3f}, high frequency "
            f"{float(high_frequency_share(pixels[None])):.3f}, slope {slope:.2f}, distance {distance:.2f}"
        )
    print(table())
    plot(_DOCS / "quality-frontier.png")
    side_by_side(asked.pictures, _DOCS / "quality-pictures.jpg")
    for preset in ("natural", "strong"):
        if (asked.pictures / preset).is_dir():
            gallery(preset, asked.pictures, _DOCS / f"squeezenet-{preset}.jpg")


if __name__ == "__main__":
    main()
