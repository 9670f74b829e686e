"""Measures configurations of the Triton kernels on the current GPU and writes the best into their table.

python -m bench.tune

Candidates take turns, round by round, so that a drifting clock favors none of them; the median decides. The
table is replaced once at the end: an interrupted run leaves it unchanged.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator

import torch

from cnnvis_fast.kernels import triton as kernels
from cnnvis_fast.kernels.triton import _launch

BATCH, CHANNELS, SIZE = 16, 3, 224
ROUNDS, CALLS = 25, 20
TILES = [
    {"BLOCK_H": height, "BLOCK_W": width, "num_warps": warps}
    for height, width, warps in itertools.product((1, 2, 4, 8, 16, 32), (16, 32, 64, 128), (1, 2, 4, 8))
    # One to eight pixels per thread.
    if 32 * warps <= height * width <= 8 * 32 * warps
]
BLOCKS = [
    {"BLOCK": block, "num_warps": warps}
    for block, warps in itertools.product((256, 512, 1024, 2048, 4096), (2, 4, 8))
]


def calls(device: torch.device) -> Iterator[tuple[str, list[dict[str, int]], Callable[[], object]]]:
    """Yields every op, its candidates and a call, with the defaults of a run: affine warps, bfloat16."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    z = draw(BATCH, CHANNELS, SIZE, SIZE)
    g = draw(*z.shape).bfloat16().contiguous(memory_format=torch.channels_last)
    color, mean, std = draw(CHANNELS, CHANNELS), draw(CHANNELS), draw(CHANNELS).abs() + 0.2
    warp = torch.eye(2, 3, device=device) + 0.1 * draw(BATCH, 2, 3)
    yield "render", TILES, lambda: kernels.render(z, color, mean, std, warp, torch.bfloat16)
    yield "render_backward", TILES, lambda: kernels.render_backward(g, z, color, std, warp)
    p, m, dp = draw(3, BATCH, CHANNELS, SIZE, SIZE // 2 + 1, 2)
    v, schedule = draw(BATCH).abs(), torch.full((BATCH, 3), 1e-3, device=device)
    yield "restrain", BLOCKS, lambda: kernels.restrain(z, z, color, 0.8, 3.0)
    numbers = (0.9, 0.99, 1e-8, 0.0)
    yield "ascend_", BLOCKS, lambda: kernels.ascend_(p, m, v, dp, schedule, None, *numbers)


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Captures several calls in one graph, so that only the GPU is measured, not Python's launches."""
    call()  # compiles; a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    return graph


def milliseconds(graph: torch.cuda.CUDAGraph) -> float:
    """Returns the milliseconds of one call in the graph."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / CALLS


def main() -> None:
    if not torch.cuda.is_available():
        print("Tuning needs a CUDA device, and torch sees none.", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda", torch.cuda.current_device())
    table = _launch.table()
    rows = table[_launch.device_key(device)] = {}
    print(
        f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, batch {BATCH}, {SIZE} px; GPU time"
    )
    for op, candidates, call in calls(device):
        graphs = []
        for candidate in candidates:
            rows[op] = candidate
            graphs.append(captured(call))
        rounds = [[milliseconds(graph) for graph in graphs] for _ in range(ROUNDS)]
        times = [statistics.quantiles(found, n=4) for found in zip(*rounds, strict=True)]
        best = min(range(len(candidates)), key=lambda k: times[k][1])
        rows[op] = candidates[best]
        low, middle, high = times[best]
        print(f"{op:<16} {middle:.4f} ms per call (p25 {low:.4f}, p75 {high:.4f}): {candidates[best]}")
    written = _launch.TABLE.with_suffix(".new")
    written.write_text(json.dumps(table, indent=2) + "\n")
    os.replace(written, _launch.TABLE)


if __name__ == "__main__":
    main()
