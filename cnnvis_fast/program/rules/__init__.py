"""Rules: which step a node of the graph becomes. `table` looks them up by module and by function.

May import `program.steps`, `program.rewrites`, `program.functions`, `kernels.ops`, `kernels.geometry` and
`kernels.layouts`.
"""
