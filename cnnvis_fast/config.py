"""Holds every option of a picture in one frozen dataclass, validated once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .errors import InputError, nearest
from .kernels import backends


@dataclass(frozen=True)
class Config:
    """The options that a picture is made with. `configure` makes one: it applies a preset and validates.

    Attributes:
        preset: name of the preset that the other values started from.
        steps: number of gradient steps.
        size: side of the picture in pixels; None takes the network's own input size.
        seed: seed of the start noise and the random transforms.
        batch: pictures that run together; None chooses a number.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: dtype of the network: "auto", "float32" or "bfloat16"; parameters are always float32.
        compile: whether the step runs under `torch.compile`; "auto" does not compile it.
        kernels: what runs the loop's own operations: "auto" (compiled kernels where the device has them),
            "reference" (plain PyTorch), "cpu-avx512", "cpu-avx2", "cpu-baseline" or "triton".
        program: whether the network runs as a program, without autograd; "auto" does so on CPUs with compiled
            kernels, if the network can be traced and `compile` is off.
        objective: "channel" (mean over positions), "neuron" (one position) or "logit" (one entry of a vector,
            such as the layer `logits`).
        position: (row, column) of the neuron in the layer's output, or (token,); None takes its center.
        parameters: "fourier" (coefficients scaled by |k|^-decay), "maco" (their phases alone, under a fixed
            magnitude; Fel et al. 2023), "cppn" (weights of a small network from coordinates to colors),
            "pixel" (in decorrelated color, before the logistic function) or "normalized" (the network's input
            itself, without transforms).
        color: "auto" (decorrelated as ImageNet's colors are with three channels, else none), "none", or
            "gray" (all channels alike).
        statistics: path of a file from `measure_statistics`, whose colors and magnitudes replace the built-in
            ones.
        decay: exponent of the spectrum's decay with frequency.
        amplitude: spectrum at one cycle per image of 224 pixels, before `corner` and `cutoff`; at other sizes
            it is set so that a frequency in cycles per pixel has the same contrast.
        corner: cycles per image below which the spectrum is flat, so that wide areas, which many units do not
            respond to, take less of the picture's contrast.
        cutoff: cycles per pixel above which the spectrum falls steeply, to 0.7 there and by 16 an octave
            higher; 0 for none.
        noise: standard deviation of the start, in units of the parameters.
        second_moment: second moment of the update: one per "image", "band" (ring of equal frequency) or
            "coefficient" (ordinary Adam), or "none" (momentum on the normalized gradient).
        rate: step size.
        late_decay: whether the rate falls over the last 27 % of the steps to a tenth.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: L2 penalty on the parameters.
        total_variation: penalty on differences between neighbors of z, the picture before the logistic
            function; in units of the gradient's root mean square, as are the next two.
        l1: penalty on |z|.
        l2: penalty on z squared.
        saturation: penalty on how far the logits of values lie beyond ±3 (values of 0.047 and 0.953), in the
            same units.
        blur: radius in pixels at 224 (standard deviation) of a blur after every step; it decays high
            frequencies.
        redirect: whether pictures that start without any gradient get one from rectifiers that let some
            through where they are off.
        transforms: "affine" (rotate, zoom, shift, crop and pad; reflected borders), "jitter" (shift by whole
            pixels around the edges) or "none".
        rotate: largest rotation in degrees.
        zoom: largest relative change of scale.
        shift: largest shift as a share of the size.
        crop: smallest side, as a share of the size, of a random square that is cut out and enlarged; 1 for
            none.
        pad: border of mean color around the picture, as a share of the size.
        input_noise: standard deviation of normal noise on the network's input, in units of that input.
        alpha: whether to record where the picture matters, as `Pictures.alpha`.
    """

    preset: str = "natural"
    steps: int = 128
    size: int | None = None
    seed: int = 0
    batch: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: bool | str = "auto"
    kernels: str = "auto"
    program: bool | str = "auto"
    objective: str = "channel"
    position: tuple[int, ...] | None = None
    parameters: str = "fourier"
    color: str = "auto"
    statistics: str | None = None
    decay: float = 1.8
    amplitude: float = 6.0
    corner: float = 1.0
    cutoff: float = 0.19
    noise: float = 0.01
    second_moment: str = "coefficient"
    rate: float = 0.2
    late_decay: bool = True
    beta1: float = 0.5
    beta2: float = 0.99
    epsilon: float = 1e-12  # gradients of a mean over many positions are small
    weight_decay: float = 0.0
    total_variation: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    saturation: float = 0.8
    blur: float = 0.0
    redirect: bool = True
    transforms: str = "affine"
    rotate: float = 10.0
    zoom: float = 0.1
    shift: float = 8 / 224
    crop: float = 1.0
    pad: float = 0.0
    input_noise: float = 0.0
    alpha: bool = False


PRESETS: dict[str, dict[str, Any]] = {
    "natural": {},
    "strong": {
        "second_moment": "coefficient",
        "rate": 0.2,
        "decay": 1.2,
        "amplitude": 0.8,
        "cutoff": 0.0,
        "saturation": 0.5,
    },
    # Adam on the normalized image, as in the repository that this project started from (see `compat`).
    "original": {
        "parameters": "normalized",
        "transforms": "none",
        "dtype": "float32",
        "steps": 50,
        "second_moment": "coefficient",
        "rate": 0.1,
        "late_decay": False,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 1e-6,
        "saturation": 0.0,
        "redirect": False,
    },
}
# Values that a parameterization needs instead of those of a preset made for Fourier coefficients.
_BY_PARAMETERS: dict[str, dict[str, Any]] = {
    "maco": {"second_moment": "coefficient", "rate": 0.3, "noise": 1.0},
    "cppn": {"second_moment": "coefficient", "rate": 0.003, "noise": 1.0},
    "pixel": {"second_moment": "coefficient", "rate": 0.05, "blur": 0.5},
}
_CHOICES: dict[str, tuple[object, ...]] = {
    "dtype": ("auto", "float32", "bfloat16"),
    "compile": ("auto", True, False),
    "kernels": backends.NAMES,
    "program": ("auto", True, False),
    "objective": ("channel", "neuron", "logit"),
    "parameters": ("fourier", "maco", "cppn", "pixel", "normalized"),
    "color": ("auto", "none", "gray"),
    "alpha": (True, False),
    "late_decay": (True, False),
    "redirect": (True, False),
    "second_moment": ("image", "band", "coefficient", "none"),
    "transforms": ("affine", "jitter", "none"),
}
_INTEGERS = {"steps": (1, 1_000_000), "size": (8, 8192), "seed": (0, 2**63 - 1), "batch": (1, 4096)}
_NUMBERS = {
    "decay": (0.0, 4.0),
    "amplitude": (1e-6, 100.0),
    "noise": (0.0, 10.0),
    "rate": (1e-9, 100.0),
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.99999),
    "epsilon": (0.0, 1.0),
    "weight_decay": (0.0, 100.0),
    "rotate": (0.0, 180.0),
    "zoom": (0.0, 0.9),
    "shift": (0.0, 1.0),
    "total_variation": (0.0, 100.0),
    "l1": (0.0, 100.0),
    "l2": (0.0, 100.0),
    "saturation": (0.0, 100.0),
    "corner": (1.0, 4096.0),
    "cutoff": (0.0, 1.0),
    "blur": (0.0, 20.0),
    "crop": (0.05, 1.0),
    "pad": (0.0, 1.0),
    "input_noise": (0.0, 10.0),
}

# Names that other packages use for an option; an error message suggests ours.
_FOREIGN_NAMES = {
    **dict.fromkeys(("lr", "learning_rate"), "rate"),
    **dict.fromkeys(("iterations", "n_iterations", "num_iterations", "n_steps", "num_steps"), "steps"),
}


def configure(preset: str | None = None, **options: Any) -> Config:
    """Returns a validated configuration: a preset ("natural" by default) with options over it.

    An option that is None keeps the preset's value. `colour` and "grey" are accepted for `color` and "gray".

    Raises:
        InputError: an option is unknown or out of its range.
    """
    preset = "natural" if preset is None else preset
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: expected one of {', '.join(PRESETS)}")
    fields = {field.name for field in dataclasses.fields(Config)}
    options = _with_our_spelling(options)
    for name in options:
        if name not in fields:
            ours = _FOREIGN_NAMES.get(name)
            hint = f"; did you mean {ours}?" if ours else nearest(name, fields)
            raise InputError(f"unknown option {name!r}{hint}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in _INTEGERS:
        if isinstance(given.get(name), np.integer):
            given[name] = int(given[name])
    if isinstance(given.get("position"), list):
        given["position"] = tuple(given["position"])
    if isinstance(given.get("device"), torch.device):
        given["device"] = str(given["device"])
    base = PRESETS[preset]
    chosen = given.get("parameters")
    suited: dict[str, Any] = {}
    if isinstance(chosen, str) and chosen != base.get("parameters"):
        suited = _BY_PARAMETERS.get(chosen, {})
    config = Config(**{"preset": preset, **base, **suited, **given})
    _validate(config)
    return config


def _with_our_spelling(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options with `colour` spelled `color`, and its value "grey" spelled "gray"."""
    british = options.pop("colour", None)
    if british is not None and options.get("color") is not None:
        raise InputError("`color` and `colour` are the same option: pass one of them")
    color = options.get("color") if british is None else british
    return options if color is None else {**options, "color": "gray" if color == "grey" else color}


def _validate(config: Config) -> None:
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise InputError(f"`{name}` must be one of {', '.join(map(str, choices))}, got {value!r}")
    for name, (low, high) in _INTEGERS.items():
        value = getattr(config, name)
        if value is None and name in ("size", "batch"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            square = ": pictures are square" if name == "size" and isinstance(value, tuple | list) else ""
            raise InputError(f"`{name}` must be a whole number from {low} to {high}, got {value!r}{square}")
    for name, (least, most) in _NUMBERS.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InputError(f"`{name}` must be a number from {least:g} to {most:g}, got {value!r}")
    if config.second_moment == "band" and config.parameters != "fourier":
        raise InputError('`second_moment` "band" needs `parameters` "fourier": pixels have no frequency')
    _validate_together(config)
    if config.statistics is not None and not isinstance(config.statistics, str):
        raise InputError(f"`statistics` must be the path of a file, got {config.statistics!r}")
    if not isinstance(config.device, str):
        raise InputError(f"`device` must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    place = config.position
    numbers = isinstance(place, tuple) and {type(number) for number in place} == {int} and len(place) < 3
    if place is not None and not numbers:
        raise InputError(f"`position` must be two whole numbers (row, column), or one (token), got {place!r}")
    if place is not None and config.objective != "neuron":
        raise InputError('`position` needs the objective "neuron": pass objective="neuron" too')


def _validate_together(config: Config) -> None:
    if config.parameters == "normalized" and config.transforms != "none":
        raise InputError(
            '`parameters` "normalized" needs `transforms` "none": the picture itself is the input'
        )
    if config.parameters == "normalized":
        for name in ("total_variation", "l1", "l2", "blur", "input_noise", "alpha"):
            if getattr(config, name):
                raise InputError(f'`{name}` does not work with `parameters` "normalized": leave it out')
    if config.parameters in ("maco", "cppn") and config.blur:
        raise InputError(f'`blur` needs `parameters` "fourier" or "pixel", got "{config.parameters}"')
    if config.transforms != "affine" and (config.crop < 1 or config.pad):
        raise InputError('`crop` and `pad` need `transforms` "affine"')
