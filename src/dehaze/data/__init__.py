"""Pictures to learn from: RESIDE folders, pairs in memory, and haze made from clear pictures and depth."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Where a training loop gets its pictures; nothing is decoded once it stands.

    Attributes:
        identity: What the data is (names, counts, hash); a resumed run refuses data with another identity.
    """

    identity: dict[str, str | int]

    def __len__(self) -> int:
        """Pictures that make an epoch."""
        ...

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw pictures at random.

        Equal generator states give equal batches, so processes that share the work seed theirs differently.

        Args:
            count: Pictures in the batch.
            size: Height and width of the crops.
            generator: Source of all randomness, on the CPU.

        Returns:
            "hazy" and "clear": (count, 3, height, width) float32 RGB in [0, 1] on the source's device.
        """
        ...
