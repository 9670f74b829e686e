"""The ops in plain PyTorch, for any device: what every other implementation is held to.

Nothing here is differentiated by autograd: `render_backward` is the explicit adjoint of `render`.
"""

from .convolutions import (
    input_gradient,
    pointwise,
    stem_convolution,
    stem_gradient,
    stem_pool,
    stem_pool_backward,
    winograd,
    winograd_pooled,
    winograd_unpooled,
)
from .network import dot, max_pool, max_pool_backward, positive, rectify, rectify_backward
from .pictures import ascend_, render, render_backward, restrain

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
