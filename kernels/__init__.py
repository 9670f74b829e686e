"""The numeric kernels: a plain PyTorch reference and its compiled counterparts.

Installed as ``cnnvis_fast.kernels``. Nothing in here imports the rest of the package.
"""
