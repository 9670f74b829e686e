"""Fixtures of the tests of networks' inspection."""

from pathlib import Path

import pytest
from PIL import Image

import cnnvis_fast as cv


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.effect_noise((150, 120), 90).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def maps(photo) -> cv.ActivationMaps:
    return cv.activation_maps("texturenet", photo, size=64)
