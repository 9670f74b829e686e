"""What all ops share: checks that name what is wrong, and calls that skip the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Dtypes of what a network reads and yields."""
PARAMETER_FLOATS = (torch.float32, torch.float64)
"""Dtypes of what the ascent moves."""


def must(condition: bool, name: str, requirement: str, got: object) -> None:
    """Raises ValueError with one sentence where a condition does not hold."""
    if not condition:
        raise ValueError(f"`{name}` must {requirement}, got {got}")


def check_floats(name: str, *tensors: Tensor) -> None:
    """Raises where tensors are empty or do not all have the same float dtype."""
    for tensor in tensors:
        if tensor.dtype not in FLOATS or tensor.dtype != tensors[0].dtype:
            raise TypeError(f"`{name}` must be of one float dtype, got {tensor.dtype}")
        must(tensor.numel() > 0, name, "not be empty", tuple(tensor.shape))


def check_size(size: list[int]) -> None:
    """Raises where a size is not a height and a width."""
    must(len(size) == 2 and min(size) >= 1, "size", "be height and width", size)


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raises where a rectifier's mask has another shape or does not consist of bytes."""
    must(mask.shape == shape, "mask", f"be {list(shape)}", tuple(mask.shape))
    if mask.dtype != torch.uint8:
        raise TypeError(f"`mask` must be uint8, got {mask.dtype}")


def check_place(place: Tensor, dy: Tensor) -> None:
    """Raises where places of maxima do not have the gradient's shape or are not bytes."""
    must(place.shape == dy.shape, "place", f"be {tuple(dy.shape)}", tuple(place.shape))
    if place.dtype != torch.uint8:
        raise TypeError(f"`place` must be uint8, got {place.dtype}")


def check_bfloat16(**tensors: Tensor) -> None:
    """Raises where one of the tensors, given by name, is not bfloat16."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bfloat16:
            raise TypeError(f"`{name}` must be bfloat16, got {tensor.dtype}")


def check_bias(bias: Tensor | None, count: int) -> None:
    """Raises where a convolution's bias is not one number for each of `count` channels."""
    if bias is not None:
        must(bias.shape == (count,), "bias", f"be [{count}]", tuple(bias.shape))
        check_floats("bias", bias)


class Op:
    """A registered op whose function runs directly where possible: the dispatcher takes 15 us of every call.

    It goes through the dispatcher, and so becomes a node of the graph, while something is compiled and on
    tensors without memory.
    """

    def __init__(self, plain: Callable[..., Any]) -> None:
        self.plain = plain
        name = f"cnnvis_fast::{plain.__name__.removeprefix('_')}"
        self.registered = torch.library.custom_op(name, plain, mutates_args=())

    def fake(self, function: Callable[..., Any]) -> None:
        """Registers a function that makes results without values."""
        self.registered.register_fake(function)

    def __call__(self, *arguments: Any) -> Any:
        """Runs the op, or makes it a node of the graph that is being traced."""
        first = arguments[0][0] if isinstance(arguments[0], list) and arguments[0] else arguments[0]
        is_direct = type(first) is Tensor and not torch.compiler.is_compiling()
        return self.plain(*arguments) if is_direct else self.registered(*arguments)


def check_images(z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> None:
    """Raises where pictures z [B, C, H, W], their color matrix [C, C], std [C] or warp do not fit."""
    must(z.ndim == 4 and z.numel() > 0, "z", "be a non-empty [B, C, H, W] tensor", tuple(z.shape))
    if z.dtype not in PARAMETER_FLOATS:
        raise TypeError(f"`z` must be float32 or float64, got {z.dtype}")
    batch, channels = z.shape[:2]
    must(z.is_contiguous(), "z", "be contiguous", f"strides {z.stride()}")
    must(color.shape == (channels, channels), "color", f"be [{channels}, {channels}]", tuple(color.shape))
    must(std.shape == (channels,), "std", f"be [{channels}]", tuple(std.shape))
    for name, value in (("color", color), ("std", std)):
        if value.dtype != z.dtype:
            raise TypeError(f"`{name}` must have z's dtype {z.dtype}, got {value.dtype}")
    if warp is None:
        return
    if warp.ndim == 2:
        must(warp.shape == (batch, 2), "warp", f"be [{batch}, 2] for jitter", tuple(warp.shape))
        if warp.dtype != torch.int64:
            raise TypeError(f"`warp` must be int64 for jitter, got {warp.dtype}")
    else:
        must(warp.shape == (batch, 2, 3), "warp", f"be [{batch}, 2] or [{batch}, 2, 3]", tuple(warp.shape))
        if warp.dtype != z.dtype:
            raise TypeError(f"`warp` must have z's dtype {z.dtype} for an affine warp, got {warp.dtype}")
