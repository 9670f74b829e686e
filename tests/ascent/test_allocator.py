import subprocess
import sys

import pytest

from cnnvis_fast.ascent.allocator import kept_buffers

# In its own process: whatever ran before shapes the heap.
PROGRAM = """
import resource

import torch

from cnnvis_fast.ascent.allocator import kept_buffers


def page_faults(allocations):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(allocations):
        torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_pages():
    return int(open("/proc/self/statm").read().split()[1])


print(page_faults(20))
start = resident_pages()
with kept_buffers():
    page_faults(10)  # the heap finds its shape within the first few
    print(page_faults(20))
    print(resident_pages() - start)
print(resident_pages() - start)
"""


def test_large_buffers_are_reused_while_kept_and_handed_back_after():
    with kept_buffers() as kept:
        if not kept:
            pytest.skip("this C library has no mallopt")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, during, held, left = map(int, done.stdout.split())
    assert during * 100 < before
    assert left * 10 < held
