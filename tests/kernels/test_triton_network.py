"""The Triton kernels inside a network have the same bits as the reference, interpreted and on a GPU."""

from __future__ import annotations

import pytest
import torch
from support.network_samples import network_samples
from support.samples import Sample
from support.tolerance import assert_as_exact, tensors, widened

from cnnvis_fast.kernels import reference, triton

OPS = ("rectify", "positive", "rectify_backward", "max_pool")
# The interpreter takes milliseconds per program: a default run has every third sample.
CASES = [
    pytest.param(op, sample, id=f"{op}-{sample}", marks=pytest.mark.slow if place % 3 else ())
    for op in (*OPS, "max_pool_backward")
    for place, sample in enumerate(network_samples(op))
]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_kernels_are_the_reference(op: str, sample: Sample, device: str) -> None:
    inputs = [
        [part.to(device) if isinstance(part, torch.Tensor) else part for part in value]
        if isinstance(value, list)
        else value
        for value in sample.inputs(device=device)
    ]
    found, low = getattr(triton, op)(*inputs), getattr(reference, op)(*inputs)
    if op == "max_pool_backward":
        assert_as_exact(found, low, reference.max_pool_backward(*map(widened, inputs)))
        return
    for one, other in zip(tensors(found), tensors(low), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
