"""Handmade atlases, which are quick to make: the page needs tiles, not a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cnnvis_fast.storage.job_folder import Store

HOSTILE = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "a/b#c?d%2Fe&f",
    "\"];document.title='hacked';//",
    "слой 層",
    "..",
    "{{ 7 * 7 }}",
]

JOB: dict[str, Any] = {
    "model": "handmade",
    "weights": "none",
    "weights_sha256": "0" * 64,
    "config": {"preset": "natural", "seed": 3, "steps": 16},
    "versions": {"torch": "0"},
}


def stripes(number: int, side: int) -> np.ndarray:
    """Returns a picture uint8 [3, side, side] whose direction and color depend on the number."""
    rows, columns = np.mgrid[:side, :side] / side
    wave = np.sin(2 * np.pi * 4 * (rows * np.cos(number) + columns * np.sin(number)))
    tint = np.array([np.sin(number * 0.7 + shift) for shift in (0, 2, 4)])
    return np.clip(127 + 60 * wave + 60 * tint[:, None, None], 0, 255).astype(np.uint8)


def record(layer: str, number: int, channels: int, **more: Any) -> dict[str, Any]:
    """Returns a tile's record, with scores that fall with the number."""
    return {
        "model": JOB["model"],
        "weights": JOB["weights"],
        "layer": layer,
        "filter": number,
        "channels": channels,
        "status": "dead" if number % 10 == 3 else "ok",
        "score_start": 0.25,
        "score": 10 - number / 4,
        "robust_score": 9 - number / 4,
        "steps": 16,
        "saturated": 0.125,
        "high_frequency": 0.0625,
        "history": [0.25 + step for step in range(16)],
        "config": JOB["config"],
        **more,
    }


def made_store(out: Path, job: dict[str, Any]) -> Store:
    """Makes the folder of a job, which contains nothing but the job."""
    store = Store(out, job)
    with store.writing():
        return store


def handmade_atlas(out: Path, layers: dict[str, int], side: int = 40, **more: Any) -> Store:
    """Makes an atlas with the given number of tiles in each layer, which has two more channels than that.

    Args:
        out: folder of the atlas.
        layers: name to the number of tiles, in the order of the network.
        side: side of the pictures in pixels.
        **more: name to a function of the tile's number, for additional entries of its record.
    """
    store = made_store(out, JOB)
    rows = [
        {"name": name, "alias": f"conv{place}", "kind": "Conv2d"}
        for place, name in enumerate(layers, start=1)
    ]
    store.write_layers(rows)
    for name, count in layers.items():
        for number in range(count):
            entries = {key: make(number) for key, make in more.items()}
            store.write(name, number, stripes(number, side), record(name, number, count + 2, **entries))
    store.write_table()
    return store
