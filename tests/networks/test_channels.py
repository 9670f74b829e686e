"""Where channels are, told by shape and kind of a layer."""

import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from cnnvis_fast.networks.channels import channel_axis, channels_second


@pytest.mark.parametrize(
    "shape, module, axis",
    [
        ((1, 10), None, 1),
        ((1, 5, 7), None, 2),
        ((1, 8, 4, 4), None, 1),
        ((1, 8, 4, 4), nn.ReLU(), 1),
        ((1, 8, 8, 5), nn.GELU(), 3),
        ((1, 8, 8, 8), nn.GELU(), 1),
        ((1, 8, 8, 8), nn.Linear(8, 8), 3),
        ((1, 8, 8, 8), nn.LayerNorm(8), 3),
        ((1, 8, 8, 8), LayerNorm2d(8), 1),
        ((1, 96, 56, 56), LayerNorm2d(96), 1),
        ((1, 8, 4, 4), nn.LayerNorm((8, 4, 4)), 1),
        ((1, 6, 4, 3), nn.Conv2d(3, 6, 3), 1),
        ((1, 5), nn.Linear(3, 5), 1),
        ((1, 3, 4, 5, 6), nn.Conv3d(3, 3, 3), None),
        ((1, 3, 4, 5, 6), nn.Linear(6, 6), None),
        ((1, 3, 8), nn.Conv1d(3, 3, 3), None),
        ((1,), None, None),
    ],
    ids=str,
)
def test_the_axis_of_the_channels(shape, module, axis):
    assert channel_axis(shape, module) == axis


def test_channels_come_second():
    x = torch.rand(2, 3, 4, 5)
    assert channels_second(x, 3).shape == (2, 5, 3, 4)
    assert channels_second(x, 1).shape == x.shape
