"""Helpers that tests of loading share."""

import warnings

import pytest
import torch

from cnnvis_fast.errors import InputError
from cnnvis_fast.networks.load import load_model

SMALL = "squeezenet1_1"


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def refusal(name, weights):
    """Returns the error message with which weights are refused."""
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        # A warning from inside the unpickler would appear next to the message.
        warnings.simplefilter("error")
        load_model(name, weights)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text.replace(str(weights), "")) < 400
    return text
