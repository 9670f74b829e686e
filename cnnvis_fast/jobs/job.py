"""What the pictures of one call are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ..config import Config
from ..images.photos import Photograph
from ..networks.preprocessing import Source


@dataclass(frozen=True, eq=False)
class Job:
    """What all pictures of one call to `maximize` or `atlas` have in common.

    Attributes:
        network: the network whose units the pictures show.
        source: name, weights and preprocessing of the network.
        config: configuration as the caller gave it, with "auto" not yet resolved.
        start: photo that all pictures start from; None for noise.
        threads: CPU threads to compute with; None keeps PyTorch's number.
    """

    network: nn.Module
    source: Source
    config: Config
    start: Photograph | None = None
    threads: int | None = None

    def for_channels(self) -> Job:
        """Returns the job that makes pictures of whole channels."""
        return replace(self, config=replace(self.config, objective="channel", position=None))
