"""A page to look at an atlas with: static files beside the tiles, readable without a server."""

from .build import gallery

__all__ = ["gallery"]
