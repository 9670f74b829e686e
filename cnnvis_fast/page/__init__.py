"""The HTML page of an atlas: static files next to the tiles, readable without a server.

Knows how an atlas is shown, and reads it through `storage.atlas_reader`. May import `results` and everything
below it, but not `jobs`.
"""

from .build import gallery

__all__ = ["gallery"]
