"""The embedded network `texturenet`, its textures and its training script."""

from .network import TextureNet
from .textures import CLASSES, GRATINGS

__all__ = ["CLASSES", "GRATINGS", "TextureNet"]
