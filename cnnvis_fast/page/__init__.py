"""The HTML page of an atlas: static files beside the tiles, readable without a server.

Knows how an atlas is shown, and reads it through `storage.atlas_reader`. May import `results` and everything
below, not `jobs`.
"""

from .build import gallery

__all__ = ["gallery"]
