"""The embedded network `texturenet`, its textures and the script that trains it."""

from .network import TextureNet
from .textures import CLASSES, GRATINGS

__all__ = ["CLASSES", "GRATINGS", "TextureNet"]
