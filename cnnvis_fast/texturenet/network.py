"""`texturenet`: the small convolutional network that ships with the package."""

from __future__ import annotations

from torch import Tensor, nn

from .textures import CLASSES

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
SIZE = 96
"""Side in pixels of the pictures made for the network, which is trained on crops of 64 and pools globally."""


def _block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class TextureNet(nn.Module):
    """Five convolutions with batch normalization, global average pooling, one linear layer.

    Takes float [N, 3, H, W] normalized with `MEAN` and `STD`; returns logits [N, len(CLASSES)].
    """

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, 24, 5),
            nn.MaxPool2d(2),
            *_block(24, 48, 3),
            nn.MaxPool2d(2),
            *_block(48, 64, 3),
            *_block(64, 64, 3),
            *_block(64, 96, 3),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(96, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of normalized pictures."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
