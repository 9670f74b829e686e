"""What an ascent keeps a second moment of, according to the shapes that `ops.ascend_` takes."""

from __future__ import annotations

from torch import Tensor


def second_moment_of(p: Tensor, v: Tensor | None, band: Tensor | None) -> str:
    """Returns "coefficient", "band" or "image" where there is one for each, or "none" for momentum."""
    if v is None:
        return "none"
    if band is not None:
        return "band"
    return "coefficient" if v.shape == p.shape else "image"
