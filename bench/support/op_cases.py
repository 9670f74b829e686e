"""Calls of the loop's ops at any size, the bytes that they have to move, and a check before timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnvis_fast.ascent.transforms import warp_table
from cnnvis_fast.config import configure
from cnnvis_fast.images.statistics import literature

CHANNELS = 3
NETWORK = torch.bfloat16  # dtype of x and g; everything else is float32

# Bytes per element of a picture. render reads z and writes x; its adjoint reads g and z and writes dz; dot
# reads h and its map; restrain reads dz and z and writes its result; ascend_ reads dp and reads and writes
# p, m and, per coefficient, v. Together: z is read twice, x written, g read, p, m, v read and written once;
# dz, which is dp, is not counted.
BYTES = {
    "render": 4 + 2,
    "render_backward": 2 + 4 + 4,
    "dot": 2 + 2,
    "restrain": 4 + 4 + 4,
    "ascend_ image": 4 + 16,
    "ascend_ coefficient": 4 + 24,
    "together": 2 * 4 + 2 + 2 + 24,
}


class Inputs:
    """Tensors of one case; p equals z, as in the pixel parameterization."""

    def __init__(self, batch: int, size: int, form: str, device: str) -> None:
        shape, generator = (batch, CHANNELS, size, size), torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device)

        config = configure(steps=1, transforms=form)
        table = warp_table(config, [str(k) for k in range(batch)], size)[0]
        self.warp = None if table is None else table.to(device)
        self.color = literature(CHANNELS).color.to(device)
        self.mean, self.std = (torch.full((CHANNELS,), value, device=device) for value in (0.45, 0.225))
        self.p, self.m, self.dp = normal(*shape), torch.zeros(shape, device=device), normal(*shape)
        self.v_image, self.v_coefficient = torch.zeros(batch, device=device), torch.zeros_like(self.p)
        self.g = normal(*shape).to(NETWORK).contiguous(memory_format=torch.channels_last)
        self.map = normal(*shape).to(NETWORK).contiguous(memory_format=torch.channels_last)
        # With a rate of zero the parameters stay unchanged in repeated runs.
        self.schedule = torch.tensor([[0.0, 2.0, 100.0]], device=device).repeat(batch, 1)

    def render(self, module: Any) -> Any:
        return module.render(self.p, self.color, self.mean, self.std, self.warp, NETWORK)

    def render_backward(self, module: Any) -> Any:
        return module.render_backward(self.g, self.p, self.color, self.std, self.warp)

    def dot(self, module: Any) -> Any:
        return module.dot(self.g, self.map)

    def restrain(self, module: Any) -> Any:
        return module.restrain(self.dp, self.p, self.color, 0.8, 3.0)

    def ascend(self, module: Any, dp: Tensor, v: Tensor) -> Any:
        return module.ascend_(self.p, self.m, v, dp, self.schedule, None, 0.5, 0.99, 1e-12, 0.0)


def work(op: str, inputs: Inputs, module: Any) -> Callable[[], object]:
    """Returns a function that calls an op of `ops` or `reference`."""
    if op == "render":
        return lambda: inputs.render(module)
    if op == "render_backward":
        return lambda: inputs.render_backward(module)
    if op == "dot":
        return lambda: inputs.dot(module)
    if op == "restrain":
        return lambda: inputs.restrain(module)
    if op == "ascend_ image":
        return lambda: inputs.ascend(module, inputs.dp, inputs.v_image)
    if op == "ascend_ coefficient":
        return lambda: inputs.ascend(module, inputs.dp, inputs.v_coefficient)

    def together() -> tuple[Tensor, Tensor]:
        x, dz = inputs.render(module), inputs.render_backward(module)
        return x, inputs.ascend(module, dz, inputs.v_coefficient)

    return together


def assert_same(found: Any, expected: Any) -> None:
    """Raises AssertionError for wrong results, which are not worth timing; the tests check the accuracy."""
    if isinstance(found, tuple):
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
        return
    error = (found.float() - expected.float()).abs().max()
    assert error <= 0.01 * expected.float().abs().max()
