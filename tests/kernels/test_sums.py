"""`dot` and `restrain` are as exact as plain PyTorch; no other image or thread count changes their bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.samples import Sample, sample_inputs
from support.tolerance import assert_as_exact, widened
from torch import Tensor

from cnnvis_fast.kernels import ops, reference

OPS = ("dot", "restrain")
EVERY = [pytest.param(op, sample, id=f"{op}-{sample}") for op in OPS for sample in sample_inputs(op)]
every_sample = pytest.mark.parametrize(("op", "sample"), EVERY)
every_implementation = pytest.mark.usefixtures("kernels")


@every_implementation
@pytest.mark.usefixtures("poisoned_memory")
@every_sample
def test_every_implementation_is_as_exact_as_the_reference(op: str, sample: Sample) -> None:
    inputs, plain = sample.inputs(), getattr(reference, op)
    found = getattr(ops, op)(*inputs)
    assert_as_exact(found, plain(*inputs), plain(*map(widened, inputs)))


@every_sample
def test_the_reference_is_its_formula(op: str, sample: Sample) -> None:
    inputs = [widened(value) for value in sample.inputs()]
    found = getattr(ops, op)(*inputs)
    if op == "dot":
        torch.testing.assert_close(found, torch.einsum("bn,bn->b", *(value.flatten(1) for value in inputs)))
        return
    dz, z, color, strength, limit = inputs
    z = z.requires_grad_()
    logits = torch.einsum("ij,bjhw->bihw", color, z)
    penalty = 0.5 * (logits - logits.clamp(-limit, limit)).square().sum()
    (pull,) = torch.autograd.grad(penalty, z)
    rms = dz.square().mean((1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(found, dz - strength * rms * pull)


@every_implementation
@pytest.mark.parametrize("op", OPS)
def test_bits_depend_neither_on_threads_nor_on_neighbors(
    kernels: str, op: str, set_threads: Callable[[int], None]
) -> None:
    if kernels == "reference" and op == "restrain":
        pytest.skip("plain PyTorch does not promise it")
    inputs = next(s for s in sample_inputs(op) if len(s.inputs()[0]) > 2).inputs()

    def run(pick: list[int]) -> Tensor:
        def cut(value: Any) -> Any:
            return value[pick] if (isinstance(value, Tensor) and value.ndim != 2) or op == "dot" else value

        found: Tensor = getattr(ops, op)(*map(cut, inputs))
        return found

    set_threads(1)
    together = run([0, 1, 2])
    set_threads(3)
    assert torch.equal(run([0, 1, 2]), together)
    assert torch.equal(run([1]), together[1:2])
    assert torch.equal(run([2, 0]), together[[2, 0]])


@every_implementation
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_what_is_no_number_stays_with_its_picture(value: float) -> None:
    sample = next(s for s in sample_inputs("restrain") if s.name.startswith("5x"))
    dz, z, *rest = sample.inputs()
    healthy = ops.restrain(dz, z, *rest)
    dz[1, 0, 2, 3] = value
    found = ops.restrain(dz, z, *rest)
    assert not found[1].isfinite().all()
    others = [0, 2, 3, 4]
    assert torch.equal(found[others], healthy[others])


@every_implementation
@pytest.mark.parametrize("op", OPS)
def test_opcheck_accepts(op: str) -> None:
    registered = next(o for o in ops.OPS if o._qualname == f"cnnvis_fast::{op}")
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(registered, sample_inputs(op)[0].inputs(), test_utils=tests)


H, Z = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
BAD: dict[str, tuple[type[Exception], str, str, tuple[Any, ...]]] = {
    "nothing": (ValueError, "h", "dot", (H[:0], H[:0])),
    "whole numbers": (TypeError, "h", "dot", (H.long(), H.long())),
    "maps of another shape": (ValueError, "maps", "dot", (H, H[:1])),
    "maps of another dtype": (TypeError, "maps", "dot", (H, H.double())),
    "a gradient of another shape": (ValueError, "dz", "restrain", (Z[:1], Z, torch.eye(3), 1.0, 3.0)),
    "a gradient of another dtype": (TypeError, "dz", "restrain", (Z.double(), Z, torch.eye(3), 1.0, 3.0)),
    "a matrix of another size": (ValueError, "color", "restrain", (Z, Z, torch.eye(4), 1.0, 3.0)),
    "a negative limit": (ValueError, "limit", "restrain", (Z, Z, torch.eye(3), 1.0, -3.0)),
    "vectors": (ValueError, "z", "restrain", (Z[0, 0], Z[0, 0], torch.eye(3), 1.0, 3.0)),
}


@pytest.mark.parametrize(("error", "name", "op", "arguments"), BAD.values(), ids=BAD)
def test_refuses(error: type[Exception], name: str, op: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=f"^`{name}` must "):
        getattr(ops, op)(*arguments)
