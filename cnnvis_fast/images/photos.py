"""Reads photos of any size, mode and orientation."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..config import configure
from ..errors import InputError, first_line
from ..randomness import uniforms

Photo: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

MOST_PIXELS = 100_000_000
"""Larger photos (300 MB in RGB) are refused by the size in their header, before they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""File formats of photos. PostScript, for example, is a program: Pillow would run it with Ghostscript."""


def read_photo(photo: Photo) -> Image.Image | Tensor:
    """Reads a photo as people see it: upright, opaque, eight bits per channel.

    Args:
        photo: one of
            - a path or a Pillow image, in any mode and up to 100 megapixels. It is rotated according to its
              EXIF orientation; transparent areas become white; 16 bits become 8; only the first frame of an
              animation is read; color profiles are ignored, as in torchvision.
            - an array, uint8, uint16 or floating point in [0, 1], [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
            - a tensor, uint8 or floating point, [C, H, W] or [1, C, H, W]: a photo that only lacks
              normalization. Floating-point values are in [0, 1].

    Returns:
        An RGB or gray ("L") image; for a tensor, a float32 tensor [C, H, W].

    Raises:
        InputError: there is no photo at that path, it is damaged or too large, or its kind is not supported.
    """
    if isinstance(photo, Tensor):
        return _read_tensor(photo)
    if isinstance(photo, np.ndarray):
        return _opaque(_array_image(photo))
    if isinstance(photo, Image.Image):
        return _decode(photo, "the image")
    if not isinstance(photo, str | os.PathLike):
        raise InputError(
            f"`image` must be a path, a PIL image, an array or a tensor, got {type(photo).__name__}"
        )
    if os.path.isdir(photo):
        raise InputError(f"{os.fspath(photo)} is a folder: pass one photo")
    if not os.path.isfile(photo):
        raise InputError(f"no photo at {os.fspath(photo)!r}: pass the path of a JPEG, PNG or other photo")
    try:
        # Pillow warns about large images slightly below our own limit and raises an error far above it.
        with warnings.catch_warnings(), open(photo, "rb") as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return _decode(image, f"the photo {os.fspath(photo)}")
    except UnidentifiedImageError as error:
        raise InputError(
            f"{os.fspath(photo)} is not a photo, whatever its name says: pass a JPEG, PNG or other photo"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(f"the photo {os.fspath(photo)}") from error
    except InputError:
        raise
    except Exception as error:  # any exception: foreign bytes fail in many ways
        raise InputError(
            f"the photo {os.fspath(photo)} cannot be read ({first_line(error)}): pass another photo"
        ) from error


def noise_image(size: int = 224, seed: int = 0, channels: int = 3) -> Tensor:
    """Returns the noise that activation maximization classically starts from: integers 125 to 189, over 255.

    Args:
        size: side in pixels.
        seed: the same seed gives the same noise on every machine.
        channels: number of channels.

    Returns:
        float32 [channels, size, size], an image for `activation_maps`.

    Raises:
        InputError: size or seed is out of range.
    """
    config = configure(size=size, seed=seed)
    drawn = uniforms(f"noise image {config.seed}", channels * size * size)
    values = np.floor(125 + 65 * drawn).astype(np.float32) / 255
    return torch.from_numpy(values.reshape(size, size, channels).transpose(2, 0, 1).copy())


def _read_tensor(picture: Tensor) -> Tensor:
    if picture.ndim == 4 and len(picture) == 1:
        picture = picture[0]
    if picture.ndim != 3 or 0 in picture.shape:
        raise InputError(
            f"a tensor must be one image [C, H, W] or [1, C, H, W], got shape {list(picture.shape)}"
        )
    if picture.dtype == torch.uint8:
        return picture.detach().cpu().float() / 255
    if not picture.is_floating_point():
        raise InputError(f"a tensor must be uint8 or floating point in [0, 1], got {picture.dtype}")
    picture = picture.detach().cpu().float()
    low, high = map(float, picture.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"a tensor's values must lie in [0, 1] before normalization, got {low:.3g} to {high:.3g}: divide "
            "by 255, or undo its normalization"
        )
    return picture


def _array_image(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"an array must be an image [H, W], [H, W, 3] or [H, W, 4], got shape {list(array.shape)}"
        )
    if array.dtype == np.uint16:
        array = array / 65535.0
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"an array's values must lie in [0, 1], got {low:.3g} to {high:.3g}")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"an array must be uint8, uint16 or floating point in [0, 1], got {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def _decode(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(name)
    try:
        image.load()
        return _opaque(_eight_bits(ImageOps.exif_transpose(image)))
    except InputError:
        raise
    except Exception as error:  # any exception: foreign bytes fail in many ways
        raise InputError(
            f"{name} is damaged or not of a supported kind ({first_line(error)}): pass another photo"
        ) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts 16-bit gray, which Pillow would clip at 255, to 8 bits; leaves other modes unchanged."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        if image.mode == "F":
            raise InputError("a photo of floating-point pixels has no known range: pass an array in [0, 1]")
        return image
    values: Any = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError("a photo of 32-bit pixels has no known range: pass an array in [0, 1]")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """Converts an image to RGB or gray, with white in place of transparency."""
    if image.has_transparency_data:
        colors = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, colors).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _too_large(name: str) -> InputError:
    return InputError(f"{name} has more than {MOST_PIXELS // 1_000_000} megapixels: shrink it first")


@dataclass(frozen=True)
class Photograph:
    """A photo in an objective: two are equal if their pixels are."""

    digest: str
    picture: Image.Image | Tensor = dataclasses.field(compare=False, repr=False)

    @staticmethod
    def of(photo: Photo | Photograph) -> Photograph:
        """Reads a photo as `read_photo` does."""
        if isinstance(photo, Photograph):
            return photo
        picture = read_photo(photo)
        values = picture.numpy() if isinstance(picture, Tensor) else np.asarray(picture)
        content = f"{values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes()
        return Photograph(hashlib.sha256(content).hexdigest()[:12], picture)
