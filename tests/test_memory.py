import resource

import pytest
import torch

from cnnvis_fast.memory import kept_buffers


def page_faults(allocations: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(allocations):
        torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_buffers_are_reused_while_kept_and_handed_back_after():
    with kept_buffers() as kept:
        if not kept:
            pytest.skip("this C library has no mallopt")
        page_faults(2)
        inside = page_faults(20)
    assert inside * 10 < page_faults(20)
