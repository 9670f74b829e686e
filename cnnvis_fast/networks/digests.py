"""Computes digests of a network's weights and structure."""

from __future__ import annotations

import contextlib
import hashlib

import torch
from torch import fx, nn

from .probe import evaluating


def weights_digest(model: nn.Module) -> str:
    """Returns the SHA-256 of the names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def structure_digest(model: nn.Module) -> str:
    """Returns the SHA-256 of the printed modules and, if the network can be traced, of its forward code."""
    text = repr(model)
    with contextlib.suppress(Exception), evaluating(model):  # any exception: tracing runs the user's code
        text += fx.symbolic_trace(model).code
    return hashlib.sha256(text.encode()).hexdigest()
