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


def sources_of(batch: dict[str, Tensor]) -> list[float]:
    return batch["hazy"].flatten(1)[:, 0].tolist()


def test_what_cannot_be_shared_evenly_is_drawn_and_shares_hold_on_average() -> None:
    mixed = MixedSource([Flat(0.25, 5), Flat(0.5, 5), Flat(0.75, 5)], [0.375, 0.375, 0.25])
    generator = torch.Generator().manual_seed(0)
    drawn = [level for _ in range(2000) for level in sources_of(mixed.batch(2, (1, 1), generator))]
    assert len(drawn) == 4000  # none is lost
    for level, share in ((0.25, 0.375), (0.5, 0.375), (0.75, 0.25)):
        assert abs(drawn.count(level) / 4000 - share) < 0.03  # four standard deviations


def test_the_even_part_of_a_share_is_always_filled() -> None:
    mixed = MixedSource([Flat(0.25, 5), Flat(0.5, 5), Flat(0.75, 5)], [1, 1, 1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = sources_of(mixed.batch(8, (1, 1), generator))
        assert len(drawn) == 8
        assert min(map(drawn.count, (0.25, 0.5, 0.75))) >= 2


def test_even_shares_draw_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    drawn = sources_of(MixedSource([Flat(0.25, 5), Flat(0.75, 7)], [0.3, 0.7]).batch(10, (1, 1), generator))
    assert drawn == [0.25] * 3 + [0.75] * 7
    many = sources_of(MixedSource([Flat(0.25, 5), Flat(0.75, 7)], [0.29, 0.71]).batch(100, (1, 1), generator))
    assert many == [0.25] * 29 + [0.75] * 71  # though 0.29 * 100 is less than 29 in floating point
    assert torch.equal(generator.get_state(), before)


def test_the_identity_names_every_part() -> None:
    mixed = MixedSource([Flat(0, 5), Flat(0, 7)], [1, 1])
    assert mixed.identity == {"0.kind": "flat", "0.pictures": 5, "1.kind": "flat", "1.pictures": 7}
