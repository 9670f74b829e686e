"""Networks and preprocessing for tests of activation maps."""

import torch
from torch import nn

PLAIN = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}


def seeded(*modules: nn.Module) -> nn.Sequential:
    network, generator = nn.Sequential(*modules).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network
