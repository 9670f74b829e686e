"""Captures the graphs that the compiler receives."""

from collections.abc import Sequence

import torch

from cnnvis_fast.ascent.loop import Ascent, compiled, step_function
from cnnvis_fast.ascent.plan import Plan
from cnnvis_fast.objectives.readout import Asked

OPS = ("render", "render_backward", "restrain", "ascend_")


def captured_graphs(plan: Plan, asked: Sequence[Asked] = (0,)) -> list[torch.fx.GraphModule]:
    """Returns the graphs that the compiler makes from the steps of a real run."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    ascent = Ascent(plan)
    ascent._step = compiled(step_function(plan, plan.module), backend=backend)
    ascent.run(asked)
    return graphs
