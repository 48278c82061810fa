"""One run of the bench: data checked first, then models, cost, quality, flicker, and a report of it all."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from dehaze.bench.contenders import Contender, gather
from dehaze.bench.cost import CostSettings, measure_cost
from dehaze.bench.dataset import find_data, pictures
from dehaze.bench.environment import describe_environment
from dehaze.bench.latency import Timing
from dehaze.bench.quality import Channel, evaluate
from dehaze.bench.report import CostRow, FlickerRow, QualityReport, QualityRow, Report
from dehaze.bench.steadiness import count_passes, measure_flicker
from dehaze.data.reside import PairSet
from dehaze.device import resolve_device
from dehaze.errors import UsageError
from dehaze.metrics import CONVENTION
from dehaze.video.source import Source


class Bar(Protocol):
    """Shows how far the work is."""

    def update(self, done: float | None = None, total: float | None = None, text: str | None = None) -> None:
        """Set what is done, the total or the description; None leaves one as it is."""
        ...

    def advance(self, amount: float = 1) -> None:
        """Count ``amount`` more as done."""
        ...


class Tracker(Protocol):
    """Opens a progress bar."""

    def __call__(
        self, text: str, total: float | None = None, unit: Literal["files", "frames", "steps"] = "files"
    ) -> AbstractContextManager[Bar]:
        """Show what is going on while the context lasts."""
        ...


class _Silent:
    """A progress bar that shows nothing."""

    def update(self, done: float | None = None, total: float | None = None, text: str | None = None) -> None:
        """Nothing."""

    def advance(self, amount: float = 1) -> None:
        """Nothing."""


def silent(
    text: str, total: float | None = None, unit: Literal["files", "frames", "steps"] = "files"
) -> AbstractContextManager[Bar]:
    """A tracker that shows nothing."""
    return nullcontext(_Silent())


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        models: Names, paths or addresses; None stands for the default model.
        references: Whether to measure the points of reference as well.
        device: As given to `Dehazer`.
        precision: As given to `Dehazer`.
        resolution: As given to `Dehazer`.
        cost: How to measure cost; None for not at all.
        data: Data sets to measure quality on.
        channel: ``rgb`` or ``y``.
        limit: Pairs to take of each data set, spread evenly; None for all.
        video: To measure flicker on; None for not at all.
        video_seconds: How much of it.
        command: What was typed, for the report.
    """

    models: Sequence[str | None] = (None,)
    references: bool = True
    device: str = "auto"
    precision: str = "auto"
    resolution: str | int = "auto"
    cost: CostSettings | None = field(default_factory=CostSettings)
    data: Sequence[Path] = ()
    channel: Channel = "rgb"
    limit: int | None = None
    video: str | None = None
    video_seconds: float | None = None
    command: str = ""


@dataclass(frozen=True)
class Session:
    """A run and what is needed to show pictures of it.

    Attributes:
        report: What was measured.
        contenders: The methods.
        data: The data sets, in the order of the report's.
    """

    report: Report
    contenders: list[Contender]
    data: list[PairSet]


def run(plan: Plan, track: Tracker = silent) -> Session:
    """Measure everything a plan asks for.

    Raises:
        DataError: A data set is missing, broken or empty.
        ModelError: A model is not available.
        UsageError: The plan asks for nothing, or for what cannot be.
        VideoError: The video cannot be read.
    """
    if plan.cost is None and not plan.data and plan.video is None:
        raise UsageError("nothing to measure: without cost, give --data or --video")
    data, notes = find_data(plan.data, plan.limit)
    settings = {"device": plan.device, "precision": plan.precision, "resolution": plan.resolution}
    contenders = gather(plan.models, references=plan.references, **settings)
    if plan.video is not None:
        with Source(plan.video):  # its turn comes last: better to know now that it cannot be read
            pass
    device = resolve_device(plan.device)
    cost, yardstick = _cost(plan, contenders, device, track)
    quality = [
        _quality(plan, contenders, found, name, track) for found, name in zip(data, _names(data), strict=True)
    ]
    report = Report(
        command=plan.command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment=describe_environment(device),
        cost=cost,
        yardstick=yardstick,
        quality=quality,
        flicker=_flicker(plan, contenders, track),
        notes=[*notes, *_notes(contenders, str(device))],
    )
    return Session(report, contenders, data)


def _names(data: Sequence[PairSet]) -> list[str]:
    """Names of data sets; those that share one are called by where they lie."""
    bearers = Counter(found.name for found in data)
    return [found.name if bearers[found.name] == 1 else str(found.subsets[0].hazy.parent) for found in data]


def _notes(contenders: Sequence[Contender], device: str) -> list[str]:
    """What a reader must know of the models that ran."""
    ran = [(c.name, c.dehazer) for c in contenders if c.dehazer is not None]
    elsewhere = [f"{name} ran on {d.info.device}" for name, d in ran if d.info.device != device]
    return [*elsewhere, *dict.fromkeys(warning for _, d in ran for warning in d.warnings)]


def _cost(
    plan: Plan, contenders: Sequence[Contender], device: torch.device, track: Tracker
) -> tuple[list[CostRow], Timing | None]:
    if plan.cost is None:
        return [], None
    with track("cost", None, "steps") as bar:
        return measure_cost(contenders, plan.cost, device, lambda done, total, _: bar.update(done, total))


def _quality(
    plan: Plan, contenders: Sequence[Contender], found: PairSet, name: str, track: Tracker
) -> QualityReport:
    methods = {c.name: c.answer for c in contenders}
    with track(f"quality, {name}", len(found)) as bar:
        scores = evaluate(methods, pictures(found), channel=plan.channel, progress=bar.update)
    return QualityReport(
        data=name,
        identity=str(found.identity["sha256"]),
        channel=plan.channel,
        convention=CONVENTION if plan.channel == "rgb" else CONVENTION.replace("RGB", "Y of BT.601", 1),
        resolution=str(plan.resolution),
        rows=[QualityRow.of(name, quality) for name, quality in scores.items()],
    )


def _flicker(plan: Plan, contenders: Sequence[Contender], track: Tracker) -> list[FlickerRow]:
    if plan.video is None:
        return []
    with track(f"flicker, {count_passes(contenders)} passes", None, "frames") as bar:
        return measure_flicker(
            contenders, plan.video, seconds=plan.video_seconds, progress=lambda: bar.advance()
        )
