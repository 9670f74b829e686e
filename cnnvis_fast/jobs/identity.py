"""Records what a job's pictures are a function of."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from typing import Any

import torch

from ..config import Config
from ..images.statistics import read_statistics
from ..networks.digests import structure_digest, weights_digest
from .job import Job
from .preprocessing_check import preprocessing_note


def job_identity(job: Job, resolved: Config) -> dict[str, Any]:
    """Returns everything that a picture's bits are a function of, except its layer and filter.

    Args:
        job: the job; the configuration that it was given tells whether the batch size was chosen.
        resolved: the configuration with device, dtype, compile, kernels and size decided.
    """
    source = job.source
    config = _with_stored_names(dataclasses.asdict(resolved))
    if resolved.statistics is not None:
        config["statistics"] = read_statistics(resolved.statistics).digest
    config["batch"] = job.config.batch or "auto"
    device = torch.device(resolved.device)
    config["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if config["device"] == "cpu":
        config["threads"] = torch.get_num_threads()
    note = preprocessing_note(job.network, source, int(resolved.size or source.size))
    if note:
        warnings.warn(note, stacklevel=3)
    return {
        **({"notes": [note]} if note else {}),
        **({"start": job.start.digest} if job.start else {}),
        "model": source.name,
        "weights": source.weights,
        "weights_sha256": weights_digest(job.network),
        "structure_sha256": structure_digest(job.network),
        "mean": list(source.mean),
        "std": list(source.std),
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in ("cnnvis_fast", "torch")},
    }


def _with_stored_names(config: dict[str, Any]) -> dict[str, Any]:
    """Spells `color` and "gray" as every existing job.json does, so that existing atlases can be resumed."""
    stored = {"colour" if name == "color" else name: value for name, value in config.items()}
    if stored["colour"] == "gray":
        stored["colour"] = "grey"
    return stored
