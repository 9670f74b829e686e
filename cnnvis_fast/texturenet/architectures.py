"""Networks of other architectures for the same textures: residual, depthwise, transformer.

Their weights do not ship with the package. `cnnvis_fast.texturenet.train` trains them, so that the same
oracle can test the pictures of every architecture. All take float [N, 3, H, W] normalized with `MEAN` and
`STD` and
return logits [N, len(CLASSES)].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .network import SIZE
from .textures import CLASSES


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class ResidualTextureNet(nn.Module):
    """A stem and three residual blocks with batch normalization; the picture is halved twice."""

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = ResidualBlock(24, 24, 1)
        self.layer2 = ResidualBlock(24, 64, 2)
        self.layer3 = ResidualBlock(64, 64, 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of normalized pictures."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.SiLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, channels, H, W] to the same shape."""
        return x * self.gate(self.expand(self.activation(self.reduce(self.squeeze(x)))))


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, gate, projection (Tan and Le 2019); a shortcut if shapes match."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = 3 * inputs
        self.expand = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.activation = nn.SiLU(inplace=True)
        self.se = SqueezeExcitation(width, inputs // 2)
        self.project = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.activation(self.bn1(self.expand(x)))
        y = self.activation(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(self.se(y)))
        return x + y if self.residual else y


class DepthwiseTextureNet(nn.Module):
    """Depthwise convolutions, SiLU, squeeze and excitation."""

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            InvertedBottleneck(24, 40, 5, 2),
            InvertedBottleneck(40, 40, 5, 1),
            InvertedBottleneck(40, 40, 5, 1),
        )
        self.head = nn.Sequential(
            nn.Conv2d(40, 128, 1, bias=False), nn.BatchNorm2d(128), nn.SiLU(inplace=True)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of normalized pictures."""
        return self.classifier(self.pool(self.head(self.blocks(self.stem(x)))).flatten(1))


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [N, T, C] to the same shape."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each with normalization before and a residual sum (pre-norm)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [N, T, C] to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TextureViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) for pictures of 96 px: mean over 144 patches of 8 px.

    Its positions are learned, so it takes no other size.
    """

    def __init__(self, num_classes: int = len(CLASSES), channels: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, channels, 8, 8)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (SIZE // 8) ** 2, channels))
        self.blocks = nn.Sequential(*(TransformerBlock(channels, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a batch of normalized pictures."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        return self.head(self.norm(self.blocks(x)).mean(1))
