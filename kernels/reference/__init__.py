"""The ops in plain PyTorch, for any device: every other backend is tested against them.

Arguments and results are those that `ops` documents and has checked. Autograd differentiates nothing here:
`render_backward` is the explicit adjoint of `render`.
"""

from .ascend import ascend_
from .pointwise import pointwise
from .pooling import max_pool, max_pool_backward
from .rectify import positive, rectify, rectify_backward
from .render import render, render_backward
from .stem import input_gradient, stem_convolution, stem_gradient
from .stem_pool import stem_pool, stem_pool_backward
from .sums import dot, restrain
from .winograd import winograd, winograd_pooled, winograd_unpooled

__all__ = [
    "ascend_",
    "dot",
    "input_gradient",
    "max_pool",
    "max_pool_backward",
    "pointwise",
    "positive",
    "rectify",
    "rectify_backward",
    "render",
    "render_backward",
    "restrain",
    "stem_convolution",
    "stem_gradient",
    "stem_pool",
    "stem_pool_backward",
    "winograd",
    "winograd_pooled",
    "winograd_unpooled",
]
