"""What the tests of every op need around them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's kernels then run interpreted. Triton asks for this once, when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from cnnvis_fast.kernels import (
    backends,
    cpu,  # after that: torchvision imports Triton
)


@pytest.fixture(params=["reference", *(f"cpu-{level}" for level in cpu.levels())])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every implementation for the CPU; the interpreted one has tests of its own."""
    with backends.using(request.param):
        yield request.param


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN, so that a number that nobody wrote shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads` for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """At small sizes, threads on a busy machine wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def same_random_networks() -> None:
    """Networks with random weights are the same in every test."""
    torch.manual_seed(0)
