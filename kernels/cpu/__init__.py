"""Kernels compiled from C++ for the CPU: float32 pictures of up to four channels, networks in bfloat16 too.

Every op takes the instruction set `level` first, then the arguments that `ops` documents and has checked. The
threads are those of torch, as many as `torch.get_num_threads()` says; results do not depend on how many.
"""

from .ascend import ascend_
from .extension import MOST_CHANNELS, build_info, levels, multiplies_bfloat16, why_unavailable
from .pointwise import pointwise
from .pooling import max_pool, max_pool_backward
from .rectify import positive, rectify, rectify_backward
from .render import render, render_backward
from .stem import input_gradient, stem_convolution, stem_gradient
from .stem_pool import stem_pool, stem_pool_backward
from .sums import dot, restrain
from .winograd import winograd, winograd_pooled, winograd_unpooled

__all__ = [
    "MOST_CHANNELS",
    "ascend_",
    "build_info",
    "dot",
    "input_gradient",
    "levels",
    "max_pool",
    "max_pool_backward",
    "multiplies_bfloat16",
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
    "why_unavailable",
    "winograd",
    "winograd_pooled",
    "winograd_unpooled",
]
