"""Small networks, options and checks that tests of pictures and atlases share."""

import torch
from torch import nn

LAST = "features.14"
FILTERS = [3, 17, 40]
OPTIONS = {"steps": 6, "size": 64, "progress": False}
PLAIN = {"steps": 8, "size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "progress": False}


def convolution(weight, bias):
    """Returns a 1x1 convolution with the given weights [out, in]."""
    layer = nn.Conv2d(len(weight[0]), len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight)[..., None, None])
        layer.bias.copy_(torch.tensor(bias))
    return layer


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)).eval()


def activation(network, layer, images):
    """Returns a layer's output, computed without this package."""
    source, kept = network.cnnvis_source, []
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (source.mean, source.std))
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, y: kept.append(y.clone()))
    try:
        with torch.no_grad():
            network((images - mean) / std)
    finally:
        handle.remove()
    return kept[0]


def contents(folder):
    """Returns the contents of every file except the log, which contains times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def same(first, second):
    return torch.equal(first.pixels, second.pixels) and torch.equal(first.scores, second.scores)
