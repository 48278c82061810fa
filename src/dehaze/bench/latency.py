"""A stopwatch that is fair: everything in turn, so that a drifting machine hurts all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

Laps = dict[str, float]
"""Stage name -> seconds, of one run."""

Case = Callable[[], Laps]
"""Does the work once and says how long each stage took."""

WARM_UP = 2
"""Runs of each case whose times are thrown away."""

MIN_RUNS = 5
_BLOCKS = 5


@dataclass(frozen=True)
class Timing:
    """Times of one stage in milliseconds.

    Attributes:
        median: Median over the runs.
        p95: 95th percentile.
        low: Lower end of where the median could have come out: its 95 % interval by order statistics, widened
            to the medians of five consecutive parts of the measurement, which drift pulls apart.
        high: Upper end.
        runs: How many runs.
    """

    median: float
    p95: float
    low: float
    high: float
    runs: int


def summarize(seconds: Sequence[float]) -> Timing:
    """Summarize one stage's times, in the order they were taken."""
    ms = [1000 * s for s in seconds]
    ranked, n = sorted(ms), len(ms)
    reach = 0.98 * math.sqrt(n)
    low = ranked[max(0, math.floor(n / 2 - reach))]
    high = ranked[min(n - 1, math.ceil(n / 2 + reach))]
    size = max(MIN_RUNS, -(-n // _BLOCKS))
    parts = [median(ms[i : i + size]) for i in range(0, n - size + 1, size)]
    return Timing(median(ms), percentile(ranked, 95), min([low, *parts]), max([high, *parts]), n)


def percentile(ranked: Sequence[float], percent: float) -> float:
    """Percentile of sorted values, interpolated linearly."""
    place = (len(ranked) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


def interleave(
    cases: Mapping[Key, Case],
    *,
    seconds: float,
    max_runs: int = 200,
    progress: Callable[[Key], None] | None = None,
) -> dict[Key, dict[str, Timing]]:
    """Time cases in turn, the runs of each spread evenly over the whole measurement.

    Args:
        cases: Name -> case.
        seconds: Time to spend on each case; but it runs at least `MIN_RUNS` times.
        max_runs: And at most this often.
        progress: Called with a case's name when it is done.

    Returns:
        Case -> stage -> times; the stage ``total`` is the sum of a run's stages.
    """
    wanted = {name: _runs_wanted(case, seconds, max_runs) for name, case in cases.items()}
    laps: dict[Key, list[Laps]] = {name: [] for name in cases}
    waiting = list(cases)
    while waiting:
        name = min(waiting, key=lambda name: len(laps[name]) / wanted[name])
        run = cases[name]()
        laps[name].append(run | {"total": sum(run.values())})
        if len(laps[name]) == wanted[name]:
            waiting.remove(name)
            if progress is not None:
                progress(name)
    return {
        name: {stage: summarize([run[stage] for run in runs]) for stage in runs[0]}
        for name, runs in laps.items()
    }


def _runs_wanted(case: Case, seconds: float, max_runs: int) -> int:
    """Warm a case up, and reckon from its last warm-up run how many runs fill the time."""
    took = [sum(case().values()) for _ in range(WARM_UP)][-1]
    return max(MIN_RUNS, round(min(max_runs, seconds / max(took, 1e-9))))


class Stopwatch:
    """Splits a run into stages.

    Args:
        synchronize: Waits until the device has finished what was asked of it.
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self.laps: Laps = {}
        self._synchronize = synchronize
        synchronize()
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage; the next one begins."""
        self._synchronize()
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
