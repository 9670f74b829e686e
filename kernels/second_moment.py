"""What an ascent keeps a second moment of, told from the shapes that `ops.ascend_` takes."""

from __future__ import annotations

from torch import Tensor


def second_moment_of(p: Tensor, v: Tensor | None, band: Tensor | None) -> str:
    """One per "coefficient", "band" or "image", or "none": momentum."""
    if v is None:
        return "none"
    if band is not None:
        return "band"
    return "coefficient" if v.shape == p.shape else "image"
