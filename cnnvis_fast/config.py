"""Every option of a picture in one frozen dataclass, validated once."""

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
    """What a picture is made with. Make one with `configure`, which applies a preset and validates.

    Attributes:
        preset: name of the preset that the other values started from.
        steps: gradient steps.
        size: side of the picture in pixels; None is the network's own input size.
        seed: of the start noise and the random transforms.
        batch: pictures that run together; None lets the plan choose.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: of the network: "auto", "float32" or "bfloat16"; parameters are always float32.
        compile: whether the step runs under `torch.compile`; "auto" runs it as it is.
        kernels: what runs the loop's own operations: "auto" (compiled kernels where the device has them),
            "reference" (plain PyTorch), "cpu-avx512", "cpu-avx2", "cpu-baseline" or "triton".
        program: whether the network runs as a program of its own, without autograd; "auto" does so on CPUs
            where the step is not compiled.
        objective: "channel" (mean over positions), "neuron" (one position) or "logit" (one of a vector, as
            the layer `logits`).
        position: (row, column) of the neuron in the layer's output; None is its centre.
        parameters: "fourier" (coefficients scaled by |k|^-decay), "pixel" (in decorrelated colour, before the
            logistic function) or "normalized" (the network's input itself, without transforms).
        decay: exponent of the spectrum's fall with frequency.
        amplitude: spectrum at one cycle per image.
        noise: standard deviation of the start, in units of the parameters.
        second_moment: of the update: one per "image", "band" (ring of equal frequency) or "coefficient"
            (ordinary Adam), or "none" (momentum on the normalized gradient).
        rate: step size.
        late_decay: whether the rate falls over the last 27 % of the steps to a tenth.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: L2 penalty on the parameters.
        redirect: whether pictures that start without any gradient are helped to one.
        transforms: "affine" (rotate, zoom and shift, reflected borders), "jitter" (shift by whole pixels
            around the edges) or "none".
        rotate: largest turn in degrees.
        zoom: largest relative change of scale.
        shift: largest shift as a share of the size.
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
    position: tuple[int, int] | None = None
    parameters: str = "fourier"
    decay: float = 1.0
    amplitude: float = 0.25
    noise: float = 0.01
    second_moment: str = "image"
    rate: float = 0.05
    late_decay: bool = True
    beta1: float = 0.5
    beta2: float = 0.99
    epsilon: float = 1e-12  # gradients of a mean over many positions are small
    weight_decay: float = 0.0
    redirect: bool = True
    transforms: str = "affine"
    rotate: float = 10.0
    zoom: float = 0.1
    shift: float = 8 / 224


PRESETS: dict[str, dict[str, Any]] = {
    "natural": {},
    "strong": {"second_moment": "coefficient", "decay": 1.2, "rate": 0.2, "amplitude": 0.4},
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
        "redirect": False,
    },
}
_CHOICES: dict[str, tuple[object, ...]] = {
    "dtype": ("auto", "float32", "bfloat16"),
    "compile": ("auto", True, False),
    "kernels": backends.NAMES,
    "program": ("auto", True, False),
    "objective": ("channel", "neuron", "logit"),
    "parameters": ("fourier", "pixel", "normalized"),
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
}


def configure(preset: str | None = None, **options: Any) -> Config:
    """A validated configuration: a preset (`natural`) with options over it; None is not set.

    Raises:
        InputError: an option is unknown or out of its range.
    """
    preset = "natural" if preset is None else preset
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}: expected one of {', '.join(PRESETS)}")
    fields = {field.name for field in dataclasses.fields(Config)}
    for name in options:
        if name not in fields:
            raise InputError(f"unknown option {name!r}{nearest(name, fields)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in _INTEGERS:
        if isinstance(given.get(name), np.integer):
            given[name] = int(given[name])
    if isinstance(given.get("position"), list):
        given["position"] = tuple(given["position"])
    if isinstance(given.get("device"), torch.device):
        given["device"] = str(given["device"])
    config = Config(**{"preset": preset, **PRESETS[preset], **given})
    _validate(config)
    return config


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
            raise InputError(f"`{name}` must be a whole number from {low} to {high}, got {value!r}")
    for name, (least, most) in _NUMBERS.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InputError(f"`{name}` must be a number from {least:g} to {most:g}, got {value!r}")
    if config.second_moment == "band" and config.parameters != "fourier":
        raise InputError('`second_moment` "band" needs `parameters` "fourier": pixels have no frequency')
    if config.parameters == "normalized" and config.transforms != "none":
        raise InputError(
            '`parameters` "normalized" needs `transforms` "none": the picture is the input as it is'
        )
    if not isinstance(config.device, str):
        raise InputError(f"`device` must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    place = config.position
    two_numbers = isinstance(place, tuple) and [type(number) for number in place] == [int, int]
    if place is not None and not two_numbers:
        raise InputError(f"`position` must be two whole numbers (row, column), got {place!r}")
    if place is not None and config.objective != "neuron":
        raise InputError('`position` is for the objective "neuron"; pass objective="neuron" too')
