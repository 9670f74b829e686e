"""Every op: its schema, its checks and its fake; one file per family, named as in `reference` and `cpu`.

Each op is registered with `torch.library` as `cnnvis_fast::<name>`, so `torch.compile` takes it as one node
of one graph. The package calls ops from here. `kernels.backends` chooses the backend that runs an op; no file
in here imports a backend. A schema knows numbers and lists only: the public functions take a `Geometry` and
unpack it for the registered op, which packs it again for the checks and the backend.
"""

from .ascend import ascend_
from .pointwise import OPS as _POINTWISE
from .pointwise import pointwise, pointwise_weight
from .pooling import LARGEST_WINDOW, max_pool, max_pool_backward
from .pooling import OPS as _POOLING
from .rectify import OPS as _RECTIFY
from .rectify import positive, rectify, rectify_backward
from .render import render, render_backward
from .stem import FEW_CHANNELS, WIDEST_FILTER, input_gradient, stem_convolution, stem_gradient
from .stem import OPS as _STEM
from .stem_pool import OPS as _STEM_POOL
from .stem_pool import stem_pool, stem_pool_backward
from .sums import dot, restrain
from .winograd import OPS as _WINOGRAD
from .winograd import winograd, winograd_pooled, winograd_unpooled, winograd_weight

OPS = (
    *(render, render_backward, ascend_, dot, restrain),
    *(*_RECTIFY, *_POOLING, *_STEM, *_STEM_POOL, *_WINOGRAD, *_POINTWISE),
)
"""All registered ops, for callers that list them."""

__all__ = [
    "FEW_CHANNELS",
    "LARGEST_WINDOW",
    "OPS",
    "WIDEST_FILTER",
    "ascend_",
    "dot",
    "input_gradient",
    "max_pool",
    "max_pool_backward",
    "pointwise",
    "pointwise_weight",
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
    "winograd_weight",
]
