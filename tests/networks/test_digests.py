"""The digest tells weights apart by a single bit."""

import pytest
import torch
from torch import nn

from cnnvis_fast.networks.digests import weights_digest
from cnnvis_fast.networks.load import load_model

pytestmark = pytest.mark.usefixtures("nothing_is_fetched")


def test_the_digest_tells_weights_apart_by_a_single_bit():
    network = load_model("texturenet", None)
    before = weights_digest(network)
    assert weights_digest(load_model("texturenet", None)) == before
    value = network.features[0].weight.view(-1)[5]
    value.copy_(torch.nextafter(value, torch.tensor(10.0)))
    assert weights_digest(network) != before


def test_the_digest_tells_buffers_names_and_shapes_apart():
    def made(name, value):
        module = nn.Module()
        module.register_buffer(name, value)
        return weights_digest(module)

    values = torch.arange(6.0)
    digests = [
        made("a", values),
        made("b", values),
        made("a", values.view(2, 3)),
        made("a", values.view(torch.int32)),
        made("a", values.bfloat16()),
        made("a", torch.tensor(True)),
    ]
    assert len(set(digests)) == len(digests)
