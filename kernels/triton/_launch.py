"""What every launch needs: the device, and the configuration that was measured to be fast on it.

A configuration says how the work is divided (tile sizes, warps), never what is computed: no result depends on
it. `python -m bench.tune` measures candidates on the current GPU and writes the best into
`configurations.json`.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch

TABLE = Path(__file__).with_name("configurations.json")
FUSED = {"enable_fp_fusion": True}
"""Passed at every launch: the default, and with it the last bits, differs between versions of Triton."""


@cache
def device_key(device: torch.device) -> str:
    """Returns the name of a device in the table, such as "sm_90"."""
    if device.type != "cuda":
        return "interpreter"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def table() -> dict[str, dict[str, dict[str, int]]]:
    """Returns the configurations by device and op; reads the file once."""
    rows: dict[str, dict[str, dict[str, int]]] = json.loads(TABLE.read_text())
    return rows


def configuration(op: str, device: torch.device) -> dict[str, int]:
    """Returns the tile sizes and other launch options of an op's kernel."""
    return (table().get(device_key(device), {}).get(op) or table()["default"][op]) | FUSED


def on(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context that makes the device the current one, on which Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
