"""What changed between two reports, beyond what chance explains.

A change counts in proportion to the cost or the error: PSNR as mean squared error and SSIM as 1 - SSIM, so
that one tolerance serves all. 5 % more error is 0.21 dB of PSNR. Times are divided by that of a fixed piece
of work, measured in the same rounds: a machine that is busier today is no change of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dehaze.bench.latency import Timing
from dehaze.bench.quality import spread
from dehaze.bench.report import CostRow, FlickerRow, QualityReport, QualityRow, Report

Verdict = Literal["same", "better", "worse", "regression"]

_EXACT = 1e-9
_ROUNDING = {"psnr": 0.005, "ssim": 0.00005}
"""What GPUs and library versions may differ by without anything having changed."""

_SMALLEST_MEMORY_CHANGE_MB = 16.0
"""Two starts of the same process differ by a few megabytes."""

_STARTUP_NOISE = 0.5
"""One start is not a distribution: it may be off by this share."""


@dataclass(frozen=True)
class Change:
    """One figure, then and now.

    Attributes:
        subject: Model or reference, and under what conditions.
        figure: What was measured, with its unit.
        before: The value in the report compared with.
        now: The value of this run.
        increase: Of the cost or the error, as a share: 0.05 is 5 % worse.
        verdict: ``same`` within noise; ``better`` or ``worse`` beyond it; ``regression`` if worse by more
            than the tolerance.
    """

    subject: str
    figure: str
    before: float
    now: float
    increase: float
    verdict: Verdict


@dataclass(frozen=True)
class Pace:
    """How long the machine takes now over how long it took: by the medians, and how sure that is."""

    middle: float = 1.0
    low: float = 1.0
    high: float = 1.0

    @classmethod
    def of(cls, before: Timing | None, now: Timing | None) -> Pace:
        """Compare the times of the fixed piece of work; 1 where one is not known."""
        if before is None or now is None:
            return cls()
        return cls(now.median / before.median, now.low / before.high, now.high / before.low)


@dataclass(frozen=True)
class Comparison:
    """All figures that two reports share, and why others were left out."""

    changes: list[Change]
    notes: list[str]

    @property
    def regressions(self) -> list[Change]:
        """What got worse by more than the tolerance."""
        return [c for c in self.changes if c.verdict == "regression"]


def compare(before: Report, now: Report, tolerance: float) -> Comparison:
    """Compare a run with an earlier report.

    Args:
        before: The earlier report: the claim.
        now: This run.
        tolerance: Increase of a cost or an error that is still accepted, as a share.
    """
    notes: list[str] = []
    same_speed = before.environment.same_speed(now.environment)
    if not same_speed:
        notes.append(
            f"times and memory are not compared: the report was made on {before.environment.describe()}"
        )
    changes = [
        *_cost_changes(before, now, tolerance, same_speed, notes),
        *_quality_changes(before, now, tolerance, notes),
        *_flicker_changes(before.flicker, now.flicker, tolerance, notes),
    ]
    return Comparison(changes, notes)


def _cost_changes(
    before: Report, now: Report, tolerance: float, same_speed: bool, notes: list[str]
) -> Iterator[Change]:
    pace = Pace.of(before.yardstick, now.yardstick)
    if same_speed and before.cost and now.cost:
        notes.append(f"the machine took {pace.middle:.2f} times as long as for the report; allowed for")
    current = {_cost_key(row): row for row in now.cost}
    for row in before.cost:
        match = current.get(_cost_key(row))
        subject = f"{row.method}, {row.width} x {row.height}"
        if match is None:
            notes.append(f"{subject}: in the report, not measured now")
            continue
        yield from _exact_changes(subject, row, match, tolerance)
        if same_speed:
            yield from _timing_changes(subject, row, match, pace, tolerance)
            yield from _process_changes(subject, row, match, pace, tolerance)


def _cost_key(row: CostRow) -> tuple[str, int, int, int, str, str]:
    return row.method, row.width, row.height, row.batch, row.precision, row.resolution


def _exact_changes(subject: str, before: CostRow, now: CostRow, tolerance: float) -> Iterator[Change]:
    figures = (("parameters", "parameters"), ("bytes", "file, bytes"), ("gflops", "GFLOPs"))
    for name, figure in figures:
        old, new = getattr(before, name), getattr(now, name)
        if old is not None and new is not None:
            yield _change(subject, figure, old, new, new / old - 1 if old else 0.0, _EXACT, tolerance)


def _timing_changes(
    subject: str, before: CostRow, now: CostRow, pace: Pace, tolerance: float
) -> Iterator[Change]:
    figures = (("network", "network, ms"), ("dehaze", "dehaze, ms"), ("whole", "file to file, ms"))
    for name, figure in figures:
        old, new = getattr(before, name), getattr(now, name)
        if isinstance(old, Timing) and isinstance(new, Timing):
            apart = new.low / pace.high > old.high or new.high / pace.low < old.low
            increase = new.median / pace.middle / old.median - 1
            noise = 0.0 if apart else float("inf")
            yield _change(subject, figure, old.median, new.median, increase, noise, tolerance)


def _process_changes(
    subject: str, before: CostRow, now: CostRow, pace: Pace, tolerance: float
) -> Iterator[Change]:
    for name, figure in (("memory_mb", "memory, MB"), ("device_memory_mb", "GPU memory, MB")):
        old, new = getattr(before, name), getattr(now, name)
        if old and new:
            noise = _SMALLEST_MEMORY_CHANGE_MB / old
            yield _change(subject, figure, old, new, new / old - 1, noise, tolerance)
    if before.startup_s and now.startup_s:
        increase = now.startup_s / pace.middle / before.startup_s - 1
        yield _change(
            subject, "start-up, s", before.startup_s, now.startup_s, increase, _STARTUP_NOISE, tolerance
        )


def _quality_changes(before: Report, now: Report, tolerance: float, notes: list[str]) -> Iterator[Change]:
    current = {(_quality_key(part), row.method): row for part in now.quality for row in part.rows}
    for part in before.quality:
        for row in part.rows:
            match = current.get((_quality_key(part), row.method))
            if match is not None:
                yield from _row_changes(f"{row.method}, {part.data}", row, match, tolerance)
            else:
                notes.append(
                    f"{row.method}: quality on {part.data} (these files, {part.channel}, resolution "
                    f"{part.resolution}) is in the report, not measured now"
                )


def _quality_key(part: QualityReport) -> tuple[str, str, str]:
    return part.identity, part.channel, part.resolution


def _row_changes(subject: str, before: QualityRow, now: QualityRow, tolerance: float) -> Iterator[Change]:
    old, new = before.overall, now.overall
    error = 10 ** ((old.psnr.mean - new.psnr.mean) / 10) - 1
    noise = 10 ** (_paired_noise(before, now, "psnr") / 10) - 1
    yield _change(subject, "PSNR, dB", old.psnr.mean, new.psnr.mean, error, noise, tolerance)
    miss = max(1 - old.ssim.mean, _EXACT)
    error, noise = (old.ssim.mean - new.ssim.mean) / miss, _paired_noise(before, now, "ssim") / miss
    yield _change(subject, "SSIM", old.ssim.mean, new.ssim.mean, error, noise, tolerance)
    more = (new.worse - old.worse) / new.pictures
    yield _change(subject, "worse than untouched", old.worse, new.worse, more, _EXACT, tolerance)


def _paired_noise(before: QualityRow, now: QualityRow, metric: str) -> float:
    """Half the 95 % interval of the mean difference, picture by picture.

    Only rounding where the pictures' scores do not bear the reported mean out: then it is not to be trusted.
    """
    old = {s.name: s for s in before.scores}
    pairs = [(old[s.name], s) for s in now.scores if s.name in old]
    if len(pairs) < 2 or len(pairs) != before.overall.pictures:
        return _ROUNDING[metric]
    differences = [getattr(b, metric) - getattr(a, metric) for a, b in pairs]
    claimed = getattr(now.overall, metric).mean - getattr(before.overall, metric).mean
    result = spread(differences, [s.scene or s.name for _, s in pairs])
    if abs(result.mean - claimed) > 1e-6:
        return _ROUNDING[metric]
    return max((result.high - result.low) / 2, _ROUNDING[metric])


def _flicker_changes(
    before: list[FlickerRow], now: list[FlickerRow], tolerance: float, notes: list[str]
) -> Iterator[Change]:
    current = {(r.method, r.video, r.frames, r.smooth): r for r in now}
    for row in before:
        match = current.get((row.method, row.video, row.frames, row.smooth))
        subject = f"{row.method}, {row.video}, smooth {row.smooth:g}"
        if match is None:
            notes.append(f"{subject}: flicker over {row.frames} frames is in the report, not measured now")
        elif row.flicker > 0:
            increase = match.flicker / row.flicker - 1
            yield _change(subject, "flicker", row.flicker, match.flicker, increase, 0.01, tolerance)


def _change(
    subject: str, figure: str, before: float, now: float, increase: float, noise: float, tolerance: float
) -> Change:
    verdict: Verdict = "same"
    if increase > max(noise, _EXACT):
        verdict = "regression" if increase > tolerance else "worse"
    elif increase < -max(noise, _EXACT):
        verdict = "better"
    return Change(subject, figure, before, now, increase, verdict)
