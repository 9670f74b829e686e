"""`render` computes the formula that it states, and `render_backward` is exactly its adjoint."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.samples import Sample, sample_inputs
from support.tolerance import assert_as_exact, assert_reference_precise
from torch import Tensor

from cnnvis_fast.kernels import ops, reference

RENDER = sample_inputs("render")
BACKWARD = sample_inputs("render_backward")
render_samples = pytest.mark.parametrize("sample", RENDER, ids=str)
backward_samples = pytest.mark.parametrize("sample", BACKWARD, ids=str)
every_implementation = pytest.mark.usefixtures("kernels")
OPCHECKS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


def reflect(position: Tensor, size: int) -> Tensor:
    """Mirrors pixel positions at the picture's outer edges, -0.5 and size - 0.5, as often as needed."""
    folded = (position + 0.5) % (2 * size)
    return torch.minimum(folded, 2 * size - folded) - 0.5


def plain_affine(x: Tensor, warp: Tensor) -> Tensor:
    """Samples one image [C, H, W] as a weighted sum of four gathered pixels, without `grid_sample`."""
    _, height, width = x.shape
    right = (2 * torch.arange(width, dtype=x.dtype) + 1) / width - 1
    down = (2 * torch.arange(height, dtype=x.dtype) + 1) / height - 1
    target = torch.stack(
        (right.expand(height, width), down[:, None].expand(height, width), torch.ones(height, width).to(x))
    )
    source = torch.einsum("ij,jhw->ihw", warp, target)
    column = reflect(((source[0] + 1) * width - 1) / 2, width).clamp(0, width - 1)
    row = reflect(((source[1] + 1) * height - 1) / 2, height).clamp(0, height - 1)
    left, top = column.floor().long(), row.floor().long()
    result = torch.zeros_like(x)
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - (row - top - i).abs()) * (1 - (column - left - j).abs())
            pixel = x[:, (top + i).clamp(max=height - 1), (left + j).clamp(max=width - 1)]
            result = result + weight * pixel
    return result


def plain_render(z: Tensor, color: Tensor, mean: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Computes the formula of `render`, image by image, in pieces that autograd differentiates."""
    pictures = []
    for k, image in enumerate(z):
        s = 1 / (1 + torch.exp(-torch.einsum("ij,jhw->ihw", color, image)))
        if warp is not None and warp.ndim == 2:
            s = torch.roll(s, (int(warp[k, 0]), int(warp[k, 1])), (1, 2))
        elif warp is not None:
            s = plain_affine(s, warp[k])
        pictures.append(torch.stack([(s[c] - mean[c]) / std[c] for c in range(len(s))]))
    return torch.stack(pictures)


def pictured(z: Tensor, color: Tensor, std: Tensor, warp: Tensor | None) -> Tensor:
    """Runs `render` in float64 with a mean that `render_backward` does not take."""
    return ops.render(z, color, torch.full_like(std, 0.5), std, warp, torch.float64)


@render_samples
def test_render_is_the_formula_in_float64(sample: Sample) -> None:
    z, color, mean, std, warp, _ = sample.inputs(torch.float64)
    found = ops.render(z, color, mean, std, warp, torch.float64)
    torch.testing.assert_close(found, plain_render(z, color, mean, std, warp), rtol=0, atol=1e-11)


@backward_samples
def test_render_backward_is_the_gradient_in_float64(sample: Sample) -> None:
    g, z, color, std, warp = sample.inputs(torch.float64)
    found = ops.render_backward(g, z, color, std, warp)
    z.requires_grad_()
    x = plain_render(z, color, torch.zeros_like(std), std, warp)
    (expected,) = torch.autograd.grad(x, z, g.double())
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


@backward_samples
def test_render_and_render_backward_are_adjoint(sample: Sample) -> None:
    g, z, color, std, warp = sample.inputs(torch.float64)
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    step = 1e-5
    ahead, behind = (pictured(z + sign * step * direction, color, std, warp) for sign in (1, -1))
    forward = (g.double() * (ahead - behind)).sum() / (2 * step)
    products = ops.render_backward(g, z, color, std, warp) * direction
    # The sum may cancel, so the error is measured by its largest possible value.
    assert (forward - products.sum()).abs() <= 1e-8 * products.abs().sum()


@pytest.mark.parametrize("kind", ["none", "jitter", "affine"])
def test_render_backward_holds_against_finite_differences_in_every_coordinate(kind: str) -> None:
    class Render(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor) -> Tensor:
            ctx.save_for_backward(z)
            return pictured(z, color, std, warp)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return ops.render_backward(g, *ctx.saved_tensors, color, std, warp)

    sample = next(s for s in BACKWARD if s.name == f"5x3x8x8-{kind}-float32")
    _, z, color, std, warp = sample.inputs(torch.float64)
    # The last image alone: its warp is the one that reaches furthest.
    z, warp = z[-1:], None if warp is None else warp[-1:]
    assert torch.autograd.gradcheck(Render.apply, z.requires_grad_(), rtol=1e-6, atol=1e-8)


@every_implementation
@render_samples
def test_render_is_as_exact_as_its_dtype(sample: Sample) -> None:
    inputs = sample.inputs()
    wide = (*sample.inputs(torch.float64)[:-1], torch.float64)
    exact, low = reference.render(*wide), reference.render(*inputs)
    assert_as_exact(ops.render(*inputs), low, exact)
    # A bilinear weight is off by the rounding of a position in pixels.
    assert_reference_precise(low, exact, scale=max(exact.shape) / float(inputs[3].min()))


@every_implementation
@backward_samples
def test_render_backward_is_as_exact_as_its_dtype(sample: Sample) -> None:
    inputs, wide = sample.inputs(), sample.inputs(torch.float64)
    exact, low = reference.render_backward(*wide), reference.render_backward(*inputs)
    assert_as_exact(ops.render_backward(*inputs), low, exact)
    assert_reference_precise(low, exact, scale=max(exact.shape) * float(exact.abs().max()))


@every_implementation
@render_samples
def test_render_gives_channels_last_memory_of_the_asked_dtype(sample: Sample) -> None:
    z, *_, dtype = inputs = sample.inputs()
    x = ops.render(*inputs)
    assert x.dtype == dtype
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.untyped_storage().data_ptr() != z.untyped_storage().data_ptr()


@every_implementation
@backward_samples
def test_render_backward_gives_contiguous_memory_in_the_dtype_of_z(sample: Sample) -> None:
    _, z, *_ = inputs = sample.inputs()
    dz = ops.render_backward(*inputs)
    assert dz.dtype == z.dtype
    assert dz.is_contiguous()


@every_implementation
def test_render_backward_takes_any_memory_layout_of_the_gradient() -> None:
    g, z, color, std, warp = next(s for s in BACKWARD if "affine" in s.name).inputs()
    expected = ops.render_backward(g, z, color, std, warp)
    assert torch.equal(ops.render_backward(g.contiguous(), z, color, std, warp), expected)
    strided = g.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    assert torch.equal(ops.render_backward(strided, z, color, std, warp), expected)
    # What the gradient of a mean looks like.
    constant = torch.ones(()).expand(z.shape)
    expected = ops.render_backward(constant.contiguous(), z, color, std, warp)
    assert torch.equal(ops.render_backward(constant, z, color, std, warp), expected)


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@render_samples
def test_render_writes_all_of_its_result(sample: Sample) -> None:
    assert ops.render(*sample.inputs()).isfinite().all()


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@backward_samples
def test_render_backward_writes_all_of_its_result(sample: Sample) -> None:
    assert ops.render_backward(*sample.inputs()).isfinite().all()


# One shape is enough: these look at metadata and aliasing, and cost a tenth of a second each.
@every_implementation
@pytest.mark.parametrize("sample", [s for s in RENDER if s.name.startswith("2x3x17x19")], ids=str)
def test_opcheck_accepts_render(sample: Sample) -> None:
    torch.library.opcheck(ops.render, sample.inputs(), test_utils=OPCHECKS)


@every_implementation
@pytest.mark.parametrize("sample", [s for s in BACKWARD if s.name.startswith("2x3x17x19")], ids=str)
def test_opcheck_accepts_render_backward(sample: Sample) -> None:
    torch.library.opcheck(ops.render_backward, sample.inputs(), test_utils=OPCHECKS)


def arguments(**replaced: Any) -> dict[str, Any]:
    """Returns valid arguments of both ops, some of them replaced."""
    valid = {
        "z": torch.zeros(2, 3, 8, 9),
        "color": torch.eye(3),
        "mean": torch.zeros(3),
        "std": torch.ones(3),
        "warp": None,
        "dtype": torch.float32,
    }
    return valid | replaced


BAD = {
    "a batch of no images": (ValueError, "z", {"z": torch.zeros(0, 3, 8, 9)}),
    "images of no rows": (ValueError, "z", {"z": torch.zeros(2, 3, 0, 9)}),
    "one image without a batch": (ValueError, "z", {"z": torch.zeros(3, 8, 9)}),
    "images that are not contiguous": (ValueError, "z", {"z": torch.zeros(2, 3, 9, 8).mT}),
    "bfloat16 parameters": (TypeError, "z", {"z": torch.zeros(2, 3, 8, 9).bfloat16()}),
    "a color matrix of other channels": (ValueError, "color", {"color": torch.eye(4)}),
    "a color matrix of another dtype": (TypeError, "color", {"color": torch.eye(3).double()}),
    "a std of other channels": (ValueError, "std", {"std": torch.ones(1)}),
    "a std of another dtype": (TypeError, "std", {"std": torch.ones(3).double()}),
    "jitter of another batch": (ValueError, "warp", {"warp": torch.zeros(3, 2, dtype=torch.int64)}),
    "jitter in three directions": (ValueError, "warp", {"warp": torch.zeros(2, 3, dtype=torch.int64)}),
    "jitter by fractions": (TypeError, "warp", {"warp": torch.zeros(2, 2)}),
    "an affine warp of another batch": (ValueError, "warp", {"warp": torch.zeros(1, 2, 3)}),
    "an affine warp of another dtype": (TypeError, "warp", {"warp": torch.zeros(2, 2, 3).double()}),
    "a warp of one number per image": (ValueError, "warp", {"warp": torch.zeros(2)}),
}
BAD_RENDER = BAD | {
    "a mean of other channels": (ValueError, "mean", {"mean": torch.zeros(4)}),
    "a mean of another dtype": (TypeError, "mean", {"mean": torch.zeros(3).double()}),
    "a result of whole numbers": (TypeError, "dtype", {"dtype": torch.int64}),
}
BAD_BACKWARD = BAD | {
    "a gradient of another shape": (ValueError, "g", {"g": torch.zeros(2, 3, 9, 8)}),
    "a gradient of one image for two": (ValueError, "g", {"g": torch.zeros(1, 3, 8, 9)}),
    "a gradient of whole numbers": (TypeError, "g", {"g": torch.zeros(2, 3, 8, 9, dtype=torch.int64)}),
}


@pytest.mark.parametrize(("error", "name", "replaced"), BAD_RENDER.values(), ids=BAD_RENDER)
def test_render_refuses(error: type[Exception], name: str, replaced: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^`{name}` must "):
        ops.render(**arguments(**replaced))


@pytest.mark.parametrize(("error", "name", "replaced"), BAD_BACKWARD.values(), ids=BAD_BACKWARD)
def test_render_backward_refuses(error: type[Exception], name: str, replaced: dict[str, Any]) -> None:
    given = {"g": torch.zeros(2, 3, 8, 9), **arguments(**replaced)}
    del given["mean"], given["dtype"]
    with pytest.raises(error, match=f"^`{name}` must "):
        ops.render_backward(**given)


@pytest.mark.parametrize(("error", "name", "replaced"), BAD_RENDER.values(), ids=BAD_RENDER)
def test_compilation_of_render_refuses(error: type[Exception], name: str, replaced: dict[str, Any]) -> None:
    # The fake runs in place of the op there; without checks the error would only come on the device.
    given = {
        key: value.to("meta") if isinstance(value, Tensor) else value
        for key, value in arguments(**replaced).items()
    }
    with pytest.raises(error, match=f"`{name}` must "):
        ops.render(**given)


def test_identity_warps_change_nothing() -> None:
    z, color, mean, std, _, _ = RENDER[0].inputs(torch.float64)
    expected = ops.render(z, color, mean, std, None, torch.float64)
    jitter = torch.zeros(len(z), 2, dtype=torch.int64)
    affine = torch.eye(2, 3, dtype=torch.float64).repeat(len(z), 1, 1)
    assert torch.equal(ops.render(z, color, mean, std, jitter, torch.float64), expected)
    found = ops.render(z, color, mean, std, affine, torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@every_implementation
def test_jitter_moves_down_and_right() -> None:
    z = torch.zeros(1, 1, 8, 9)
    z[0, 0, 2, 3] = math.log(3)  # sigmoid: 0.75, among pixels of 0.5
    one = torch.ones(1)
    x = ops.render(z, torch.eye(1), 0.5 * one, one, torch.tensor([[1, 2]]), torch.float32)
    assert x.nonzero().tolist() == [[0, 0, 3, 5]]
