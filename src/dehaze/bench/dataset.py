"""Data sets on disk as pairs to score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dehaze.bench.quality import PicturePair
from dehaze.data.reside import Pair, PairSet, discover, find_subsets, read_pair, spread

_HARMLESS = "clear pictures without a hazy one"


def find_data(roots: Sequence[Path], limit: int | None = None) -> tuple[list[PairSet], list[str]]:
    """Find data sets, test parts where there are any, one for each folder of pairs; and what to note of them.

    Raises:
        DataError: One is missing, empty, or has files that belong to no sound pair.
    """
    found: list[PairSet] = []
    notes: list[str] = []
    for root in roots:
        has_tests = root.is_dir() and any(s.split == "test" for s in find_subsets(root))
        whole = discover(root, "test" if has_tests else None)
        if not whole.pairs or any(p.kind != _HARMLESS for p in whole.problems):
            whole.require_sound()
        if whole.problems:
            notes.append(f"{root}: {len(whole.problems)} {_HARMLESS} are left out")
        found += _parts(whole, limit)
    return found, notes


def _parts(whole: PairSet, limit: int | None) -> Iterator[PairSet]:
    for subset in whole.subsets:
        pairs = [p for p in whole.pairs if p.hazy.is_relative_to(subset.hazy)]
        if pairs:
            few = pairs if limit is None else spread(pairs, limit)
            yield replace(whole, subsets=(subset,), pairs=tuple(few), problems=())


def pictures(found: PairSet) -> Iterator[PicturePair]:
    """Decode a data set's pairs, one by one.

    Raises:
        DataError: A picture is damaged.
    """
    for pair in found.pairs:
        yield picture_pair(pair, found)


def picture_pair(pair: Pair, found: PairSet) -> PicturePair:
    """Decode one pair of a data set.

    Raises:
        DataError: A picture is damaged.
    """
    return PicturePair(name_of(pair, found), *read_pair(pair), level_of(pair), pair.scene)


def name_of(pair: Pair, found: PairSet) -> str:
    """Name a pair by its hazy picture's path below its subset, wherever that lies (see `find_data`)."""
    return pair.hazy.relative_to(found.subsets[0].hazy.parent).as_posix()


def level_of(pair: Pair) -> str:
    """How thick the haze is, as the names tell: beta, or SOTS indoor's number; empty if they do not.

    ITS numbers its pictures too, but draws beta at random for each: no level.
    """
    if pair.beta is not None:
        return f"{pair.beta:g}"
    return str(pair.level) if pair.level is not None and pair.airlight is None else ""
