"""Fixtures of the tests that load networks."""

import socket

import pytest
from torch import nn

from cnnvis_fast.networks import load


@pytest.fixture
def nothing_is_fetched(monkeypatch, tmp_path_factory):
    def refuse(*_):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # An empty cache, so that weights which this machine happens to have do not hide a download.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))


@pytest.fixture
def asked_for(monkeypatch):
    """Replaces torchvision's networks by a tiny one and tells which weights were asked for."""
    asked = []

    def get_model(name, weights=None, **_):
        asked.append((name, weights))
        return nn.Sequential(nn.Conv2d(3, 2, 3))

    monkeypatch.setattr(load.zoo, "get_model", get_model)
    return asked
