"""PSNR and SSIM of dehazing methods over pairs of pictures, by the convention of `dehaze.metrics`.

Methods are functions of plain uint8 arrays::

    quality = evaluate({"mine": dehazer}, pictures(discover(Path("SOTS/indoor"))))["mine"]
    quality.psnr.mean, quality.ssim.mean, quality.worse, quality.best, quality.worst
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from dehaze.errors import DataError
from dehaze.metrics import PSNR_CAP, luma, psnr, ssim

Pixels = npt.NDArray[np.uint8]
Method = Callable[[Pixels], Pixels]
"""Hazy (H, W, 3) uint8 RGB -> clear, same shape."""

Channel = Literal["rgb", "y"]

WORSE_BY = 0.01
"""A picture counts as worse than untouched if it loses more than this many dB: less is rounding."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class PicturePair:
    """A hazy picture and its truth.

    Attributes:
        name: What to call the pair in a report.
        hazy: The picture to dehaze, (H, W, 3) uint8 RGB.
        clear: The truth, same shape.
        level: Haze level as the file names tell it; empty if they do not.
        scene: Pairs of one scene share this; they are resampled together. Empty: the pair is its own scene.
    """

    name: str
    hazy: Pixels
    clear: Pixels
    level: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Score:
    """What one method made of one pair.

    Attributes:
        name: The pair's name.
        psnr: In dB, at most `PSNR_CAP`.
        ssim: In [-1, 1].
        gain: PSNR over that of the untouched hazy picture, in dB.
        level: The pair's haze level.
        scene: The pair's scene.
    """

    name: str
    psnr: float
    ssim: float
    gain: float
    level: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Spread:
    """Mean of a metric, its standard deviation over pictures, 95 % confidence interval of the mean."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """Scores of one method, picture by picture, and what they come to."""

    scores: list[Score] = field(default_factory=list)

    @property
    def psnr(self) -> Spread:
        """PSNR in dB over all pictures."""
        return spread([s.psnr for s in self.scores], self._scenes())

    @property
    def ssim(self) -> Spread:
        """SSIM over all pictures."""
        return spread([s.ssim for s in self.scores], self._scenes())

    @property
    def worse(self) -> int:
        """How many pictures the method left farther from the truth than it found them."""
        return sum(s.gain < -WORSE_BY for s in self.scores)

    @property
    def best(self) -> Score:
        """The picture with the highest PSNR."""
        return max(self.scores, key=lambda s: s.psnr)

    @property
    def worst(self) -> Score:
        """The picture with the lowest PSNR."""
        return min(self.scores, key=lambda s: s.psnr)

    def by_level(self) -> dict[str, Quality]:
        """Split by haze level, thinnest first; empty if no name told a level."""
        levels = sorted({s.level for s in self.scores if s.level}, key=_number_or_name)
        return {level: Quality([s for s in self.scores if s.level == level]) for level in levels}

    def _scenes(self) -> list[str]:
        return [s.scene or s.name for s in self.scores]


def evaluate(
    methods: Mapping[str, Method],
    pairs: Iterable[PicturePair],
    *,
    channel: Channel = "rgb",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Quality]:
    """Score several methods on the same pairs, each picture decoded once.

    Args:
        methods: Name -> method. What a method returns is compared as it is: uint8, so clamped and rounded.
        pairs: The pictures; a generator may decode them one by one, as `dehaze.bench.dataset.pictures` does.
        channel: ``rgb``, or ``y`` for the luma of BT.601 as super-resolution papers report it.
        progress: Called with the number of pairs done after each pair.

    Returns:
        The methods' names, in order, with their scores.

    Raises:
        DataError: A pair differs in size, or is too small for SSIM; or there are no pairs.
    """
    results: dict[str, Quality] = {name: Quality() for name in methods}
    done = 0
    for pair in pairs:
        try:
            baseline = _score(pair.hazy, pair.clear, channel)[0]
        except ValueError as error:
            raise DataError(f"{pair.name}: {error}") from error
        for name, method in methods.items():
            db, similarity = _score(method(pair.hazy), pair.clear, channel)
            score = Score(pair.name, db, similarity, db - baseline, pair.level, pair.scene)
            results[name].scores.append(score)
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise DataError("no pairs of pictures to measure quality on")
    return results


def spread(values: Sequence[float], scenes: Sequence[str]) -> Spread:
    """Mean, sample standard deviation and 95 % confidence interval of the mean.

    The interval is a percentile bootstrap over scenes: pictures of one scene at several haze levels are not
    independent and are drawn together. With one scene the interval is the mean itself.
    """
    x = np.asarray(values, dtype=np.float64)
    groups: dict[str, list[float]] = {}
    for value, scene in zip(values, scenes, strict=True):
        groups.setdefault(scene, []).append(value)
    sums = np.array([sum(g) for g in groups.values()])
    counts = np.array([len(g) for g in groups.values()])
    picks = np.random.default_rng(0).integers(len(groups), size=(_RESAMPLES, len(groups)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Spread(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0, float(low), float(high))


def untouched(pixels: Pixels) -> Pixels:
    """Return the input: what any method has to beat."""
    return pixels


def _score(answer: Pixels, clear: Pixels, channel: Channel) -> tuple[float, float]:
    if channel == "y":
        answer, clear = luma(answer), luma(clear)
    return min(psnr(answer, clear), PSNR_CAP), ssim(answer, clear)


def _number_or_name(level: str) -> tuple[float, str]:
    try:
        return float(level), level
    except ValueError:
        return float("inf"), level
