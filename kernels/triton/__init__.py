"""Not there yet."""

import torch


def why_not(device: torch.device) -> str | None:
    """Tell why."""
    return f"there are no Triton kernels for {device} yet"
