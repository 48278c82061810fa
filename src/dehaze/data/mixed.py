"""Several sources as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dehaze.data import Source


class MixedSource:
    """Batches drawn from several sources, each filling its share.

    What cannot be divided evenly is drawn, so that shares hold on average however small the batches are.

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
        counts = self._divide(count, generator)
        parts = [s.batch(n, size, generator) for s, n in zip(self.sources, counts, strict=True) if n]
        return {key: torch.cat([p[key] for p in parts]) for key in parts[0]}

    def _divide(self, count: int, generator: torch.Generator) -> list[int]:
        wanted = torch.tensor(self._shares, dtype=torch.float64) * count
        counts = (wanted + 1e-9).floor()  # a share of 0.3 of 10 is 3, whatever floating point says
        left = count - int(counts.sum())
        if left:
            weights = (wanted - counts).clamp(min=0)
            drawn = torch.multinomial(weights, left, replacement=True, generator=generator)
            counts += torch.bincount(drawn, minlength=len(counts))
        return [int(n) for n in counts]
