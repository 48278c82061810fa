"""Training and validation data from what a user names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from dehaze.data import Source
from dehaze.data.depth import DepthSource, find_frames, hazy_and_clear, without_depth
from dehaze.data.mixed import MixedSource
from dehaze.data.pairs import PairSource
from dehaze.data.reside import Pair, discover, read_pair, spread
from dehaze.errors import DataError, UsageError
from dehaze.training.recipe import Recipe
from dehaze.training.validation import DehazeValidator, PairSet, Pixels, SuperResolutionValidator

_T = TypeVar("_T")
_Pairs = list[tuple[Pixels, Pixels]]
Judge = DehazeValidator | SuperResolutionValidator

PSEUDO = "pseudo"
"""In place of a depth folder: draw plausible depth (`dehaze.data.outdoor`)."""

HELD_OUT, MAX_HELD_OUT = 0.02, 40
"""Share of scenes, and largest number of pairs, kept for validation when no validation data is named."""


@dataclass(frozen=True)
class DataSpec:
    """Which data to use.

    Attributes:
        roots: RESIDE folders or folders of pairs; may stand beside `clear`.
        clear: Folders of clear pictures to make haze over.
        depth: Their depth folders, one for each of `clear`, or ``pseudo``.
        shares: Weight of each of `roots`, then of each of `clear`; empty for equal weights.
        validation: Folders of pairs to validate on; empty to hold some scenes out.
        names: What the data is called, with its terms; goes into the checkpoint's header.
    """

    roots: tuple[Path, ...] = ()
    clear: tuple[Path, ...] = ()
    depth: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    validation: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()


def build_data(spec: DataSpec, recipe: Recipe, device: torch.device) -> tuple[Source, Judge]:
    """Find, check and load the data; see `DataSpec`.

    Raises:
        DataError: Data is missing, incomplete or unreadable; the message says what and where.
        UsageError: Folders that belong together were not named together.
    """
    if not spec.roots and not spec.clear:
        raise UsageError("name the data: --data DIR, or --clear DIR with --depth DIR")
    if len(spec.depth) != len(spec.clear):
        raise UsageError(
            f"{len(spec.clear)} --clear and {len(spec.depth)} --depth were given: each --clear DIR needs its "
            f"--depth DIR, or --depth {PSEUDO} where there is none"
        )
    count = len(spec.roots) + len(spec.clear)
    if spec.shares and len(spec.shares) != count:
        raise UsageError(
            f"{len(spec.shares)} --share were given for {count} folders of data",
            "expected one for each --data, then one for each --clear",
        )
    if not all(math.isfinite(share) and share >= 0 for share in spec.shares) or (
        spec.shares and not sum(spec.shares)
    ):
        raise UsageError(f"--share is {', '.join(map(str, spec.shares))}: expected numbers from 0, not all 0")
    held_out = not spec.validation
    parts = [_from_pairs(root, recipe, device, held_out) for root in spec.roots]
    parts += [
        _from_depth(clear, depth, recipe, device, held_out)
        for clear, depth in zip(spec.clear, spec.depth, strict=True)
    ]
    sources = [source for source, _ in parts]
    held = [pair for _, pairs in parts for pair in pairs]
    sets = [PairSet("held out", tuple(held))] if held_out else _read_sets(spec.validation, recipe)
    if count == 1:
        return sources[0], _validator(recipe, sets, device)

    return MixedSource(sources, spec.shares or [1.0] * count), _validator(recipe, sets, device)


def _from_pairs(root: Path, recipe: Recipe, device: torch.device, held_out: bool) -> tuple[Source, _Pairs]:
    """A source of a folder's pairs, and the pairs that were held out of it."""

    found = discover(root, "train").require_sound()
    scenes = list(dict.fromkeys(p.scene for p in found.pairs))
    out = set(_held_out(scenes)) if held_out else set()
    kept = replace(found, pairs=tuple(p for p in found.pairs if p.scene not in out))
    held = spread(_to_judge([p for p in found.pairs if p.scene in out], recipe), MAX_HELD_OUT)
    source = PairSource(kept, recipe.sizes, device=device, view=recipe.view, reduction=recipe.reduction)
    return source, [read_pair(p) for p in held]


def _from_depth(
    clear: Path, depth: str, recipe: Recipe, device: torch.device, held_out: bool
) -> tuple[Source, _Pairs]:
    """A source that makes haze, and pairs by SOTS indoor's rule (A = 1, beta = 1) over held-out frames."""

    frames = without_depth(clear) if depth == PSEUDO else find_frames(clear, Path(depth))
    out = _held_out(frames) if held_out else []
    kept = frames[: len(frames) - len(out)]
    source = DepthSource(
        kept,
        recipe.sizes,
        device=device,
        rule=recipe.haze,
        view=recipe.view,
        clear_share=recipe.clear_share,
        white_share=recipe.white_share,
        beta=recipe.beta,
        zooms=recipe.zooms,
        warps=recipe.warps,
        varied_share=recipe.varied_share,
        painted_share=recipe.painted_share,
        kept_share=recipe.kept_share,
        real=recipe.real,
        reduction=recipe.reduction,
    )
    return source, [hazy_and_clear(frame) for frame in out]


def _held_out(items: Sequence[_T]) -> list[_T]:
    """The last few, evenly few whatever the size; at least one stays for training."""
    count = min(MAX_HELD_OUT, max(1, round(HELD_OUT * len(items))), len(items) - 1)
    if count < 1:
        raise DataError("a single scene cannot be both trained on and validated on", "name data with --val")
    return list(items[-count:])


def _to_judge(pairs: Sequence[Pair], recipe: Recipe) -> list[Pair]:
    """Pairs to validate on; a super-resolution teacher, which sees truths alone, gets each truth once."""
    if recipe.task != "super-resolution":
        return list(pairs)
    return list({pair.clear: pair for pair in pairs}.values())


def _read_sets(folders: Sequence[Path], recipe: Recipe) -> list[PairSet]:
    found = [
        (folder.name, _to_judge(discover(folder, "test").require_sound().pairs, recipe)) for folder in folders
    ]
    names = [name for name, _ in found]
    titles = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    return [
        PairSet(title, tuple(read_pair(p) for p in pairs))
        for title, (_, pairs) in zip(titles, found, strict=True)
    ]


def _validator(recipe: Recipe, sets: list[PairSet], device: torch.device) -> Judge:
    if recipe.task != "super-resolution":
        return DehazeValidator(sets, device)
    clear = [truth for s in sets for _, truth in s.pairs]
    scale = int(recipe.model.get("scale", 2))
    return SuperResolutionValidator(clear, scale, device)
