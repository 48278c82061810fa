"""Several sources as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dehaze.data import Source


class MixedSource:
    """Batches drawn from several sources, each filling its share.

    Args:
        sources: The sources, all on one device.
        shares: Their weights, in any unit.
    """

    def __init__(self, sources: Sequence[Source], shares: Sequence[float]) -> None:
        self.sources = list(sources)
        total = sum(shares)
        self._shares = [s / total for s in shares]
        self.identity: dict[str, str | int] = {
            f"{i}.{key}": value for i, s in enumerate(self.sources) for key, value in s.identity.items()
        }

    def __len__(self) -> int:
        return sum(len(s) for s in self.sources)

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Join the sources' batches; see `dehaze.data.Source.batch`."""
        counts = [int(count * s) for s in self._shares]
        counts[0] += count - sum(counts)
        parts = [s.batch(n, size, generator) for s, n in zip(self.sources, counts, strict=True) if n]
        return {key: torch.cat([p[key] for p in parts]) for key in parts[0]}
