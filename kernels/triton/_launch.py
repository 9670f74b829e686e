"""What every launch needs: the device, and the configuration that was measured to be fast there.

A configuration says how the work is cut (tile sizes, warps), never what is computed: no result depends on
it. `python -m bench.tune` measures candidates on the present GPU and writes them into `configurations.json`.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch

TABLE = Path(__file__).with_name("configurations.json")
FUSED = {"enable_fp_fusion": True}
"""Said at every launch: the default changes between versions of Triton, and the last bits with it."""


@cache
def device_key(device: torch.device) -> str:
    """The name of a device in the table, such as "sm_90"."""
    if device.type != "cuda":
        return "interpreter"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def table() -> dict[str, dict[str, dict[str, int]]]:
    """Configurations by device and op, read once."""
    rows: dict[str, dict[str, dict[str, int]]] = json.loads(TABLE.read_text())
    return rows


def configuration(op: str, device: torch.device) -> dict[str, int]:
    """Tile sizes and other options of an op's kernel, as its launch takes them."""
    return (table().get(device_key(device), {}).get(op) or table()["default"][op]) | FUSED


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes the tensors' device the current one, which is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
