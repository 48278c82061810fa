"""Several sources as one: shares, identity, and that the sources' kinds do not matter."""

from __future__ import annotations

import torch
from torch import Tensor

from dehaze.data.mixed import MixedSource


class Flat:
    def __init__(self, level: float, length: int) -> None:
        self.level, self.length = level, length
        self.identity: dict[str, str | int] = {"kind": "flat", "pictures": length}

    def __len__(self) -> int:
        return self.length

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        pictures = torch.full((count, 3, *size), self.level)
        return {"hazy": pictures, "clear": 1 - pictures}


def test_sources_fill_their_shares() -> None:
    mixed = MixedSource([Flat(0.25, 5), Flat(0.75, 7)], [3, 1])
    batch = mixed.batch(8, (2, 4), torch.Generator())
    assert batch["hazy"][:, 0, 0, 0].tolist() == [0.25] * 6 + [0.75] * 2
    assert torch.equal(batch["clear"], 1 - batch["hazy"])
    assert len(mixed) == 12


def test_what_cannot_be_shared_evenly_goes_to_the_first_and_none_is_lost() -> None:
    mixed = MixedSource([Flat(0.25, 5), Flat(0.5, 5), Flat(0.75, 5)], [1, 1, 1])
    assert mixed.batch(8, (1, 1), torch.Generator())["hazy"].flatten(1)[:, 0].tolist() == [
        *[0.25] * 4,
        *[0.5] * 2,
        *[0.75] * 2,
    ]
    assert len(mixed.batch(1, (1, 1), torch.Generator())["hazy"]) == 1


def test_the_identity_names_every_part() -> None:
    mixed = MixedSource([Flat(0, 5), Flat(0, 7)], [1, 1])
    assert mixed.identity == {"0.kind": "flat", "0.pictures": 5, "1.kind": "flat", "1.pictures": 7}
