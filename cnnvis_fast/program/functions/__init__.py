"""The functions that a program's steps call, forward and backward.

They compute, and decide nothing. May import `program.steps`, `kernels.ops` and `kernels.geometry`.
"""
