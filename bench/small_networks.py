"""Makes class pictures of the small networks of other architectures, with default settings.

    python -m bench.small_networks

Writes docs/small-networks.jpg, ten classes per row.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from safetensors.torch import load_file

import cnnvis_fast as cv
from bench.support.grid import grid
from cnnvis_fast.images.sheets import to_image
from cnnvis_fast.texturenet import CLASSES
from cnnvis_fast.texturenet.network import MEAN, SIZE, STD
from cnnvis_fast.texturenet.train import RECIPES

_ROOT = Path(__file__).parents[1]
TITLES = {
    "residual": "BatchNorm and shortcuts",
    "depthwise": "depthwise, SiLU",
    "vit": "vision transformer",
}


def main() -> None:
    rows: dict[str, dict[str, Image.Image | None]] = {}
    for architecture, title in TITLES.items():
        network = RECIPES[architecture].network()
        network.load_state_dict(load_file(_ROOT / f"tests/assets/texturenet_{architecture}.safetensors"))
        pictures = cv.maximize(network.eval(), "logits", mean=MEAN, std=STD, size=SIZE)
        names = [name.replace("stripes_", "") for name in CLASSES]
        tiles = dict(zip(names, map(to_image, pictures.pixels.numpy()), strict=True))
        for first in range(0, len(names), 10):
            heading = title if first == 0 else " " * len(rows)
            rows[heading] = {name: tiles[name] for name in names[first : first + 10]}
    grid(rows, _ROOT / "docs/small-networks.jpg", tile=96)


if __name__ == "__main__":
    main()
