"""The numeric kernels: plain PyTorch references and their compiled counterparts.

Installed as ``cnnvis_fast.kernels``. Nothing in here imports the rest of the package.
"""
