"""Fixtures of the tests of whole jobs."""

import pytest
from support.jobs import FILTERS, OPTIONS

import cnnvis_fast as cv


@pytest.fixture(scope="module")
def texturenet():
    return cv.load_model("texturenet")


@pytest.fixture(scope="module")
def pictures(texturenet):
    return cv.maximize(texturenet, "conv5", FILTERS, **OPTIONS)
