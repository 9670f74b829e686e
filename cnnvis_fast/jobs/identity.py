"""Tells what a job's pictures are a function of."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from typing import Any

import torch
from torch import nn

from ..config import Config
from ..images.photos import Photograph
from ..images.statistics import read_statistics
from ..networks.digests import structure_digest, weights_digest
from ..networks.preprocessing import Source
from .preprocessing_check import preprocessing_note


def job_identity(
    model: nn.Module, source: Source, settled: Config, asked: Config, start: Photograph | None = None
) -> dict[str, Any]:
    """Everything that a picture's bits are a function of, but for its layer and filter.

    Args:
        model: the network, for its weights.
        source: its name and preprocessing.
        settled: the configuration with device, dtype, compile, kernels and size decided.
        asked: the configuration as it came, for the batch.
        start: photo that all pictures start from.
    """
    config = dataclasses.asdict(settled)
    if settled.statistics is not None:
        config["statistics"] = read_statistics(settled.statistics).digest
    config["batch"] = asked.batch or "auto"
    device = torch.device(settled.device)
    config["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if config["device"] == "cpu":
        config["threads"] = torch.get_num_threads()
    note = preprocessing_note(model, source, int(settled.size or source.size))
    if note:
        warnings.warn(note, stacklevel=3)
    return {
        **({"notes": [note]} if note else {}),
        **({"start": start.digest} if start else {}),
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": weights_digest(model),
        "structure_sha256": structure_digest(model),
        "mean": list(source.mean),
        "std": list(source.std),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in ("cnnvis_fast", "torch")},
    }
