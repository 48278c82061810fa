"""A report: everything one run of `dehaze bench` measured, as plain values that JSON keeps exactly."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dehaze.bench.environment import Environment
from dehaze.bench.latency import Timing
from dehaze.bench.plain import build
from dehaze.bench.quality import Quality, Score, Spread
from dehaze.errors import DataError

REPORT_VERSION = 1
"""Raised when a reader of today could misunderstand a report of tomorrow."""


@dataclass(frozen=True)
class CostRow:
    """What one method costs on one size of picture.

    Attributes:
        method: Model or reference.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        working_width: Of what the network looks at; equal to the picture's without a working resolution.
        working_height: Likewise.
        batch: Pictures in one call of the network (``network`` only).
        precision: Number format of the network; empty for references without one.
        resolution: As asked for: auto, full or a number.
        parameters: Learned values; None for references without any.
        bytes: Size of the checkpoint file; None without one.
        gflops: Of one picture at the working size, see `dehaze.bench.complexity.FLOPS_CONVENTION`.
        network: The network alone, on tensors that lie on the device; one call, that is one batch.
        decode: JPEG in memory -> pixels.
        dehaze: Pixels -> pixels, all that `dehaze run` does between decoding and encoding.
        encode: Pixels -> JPEG in memory.
        whole: The three together.
        startup_s: A fresh process, from its start to the first clear picture; None if not measured.
        memory_mb: Peak main memory of that process.
        device_memory_mb: Peak memory of the GPU in that process; None on CPU.
    """

    method: str
    width: int
    height: int
    working_width: int
    working_height: int
    batch: int
    precision: str
    resolution: str
    parameters: int | None = None
    bytes: int | None = None
    gflops: float | None = None
    network: Timing | None = None
    decode: Timing | None = None
    dehaze: Timing | None = None
    encode: Timing | None = None
    whole: Timing | None = None
    startup_s: float | None = None
    memory_mb: float | None = None
    device_memory_mb: float | None = None

    @property
    def network_rate(self) -> float | None:
        """Pictures a second through the network alone."""
        return 1000 * self.batch / self.network.median if self.network else None

    @property
    def whole_rate(self) -> float | None:
        """Pictures a second from file to file."""
        return 1000 / self.whole.median if self.whole else None


@dataclass(frozen=True)
class Summary:
    """What scores come to."""

    pictures: int
    psnr: Spread
    ssim: Spread
    worse: int

    @classmethod
    def of(cls, quality: Quality) -> Summary:
        """Summarize scores."""
        return cls(len(quality.scores), quality.psnr, quality.ssim, quality.worse)


@dataclass(frozen=True)
class QualityRow:
    """How well one method does on one data set.

    Attributes:
        method: Model or reference.
        overall: Over all pictures.
        levels: Haze level -> over its pictures.
        scores: Picture by picture.
    """

    method: str
    overall: Summary
    levels: dict[str, Summary]
    scores: list[Score]

    @classmethod
    def of(cls, method: str, quality: Quality) -> QualityRow:
        """Summarize scores overall and by level."""
        levels = {level: Summary.of(part) for level, part in quality.by_level().items()}
        return cls(method, Summary.of(quality), levels, quality.scores)

    @property
    def quality(self) -> Quality:
        """The scores, to be asked for more."""
        return Quality(self.scores)


@dataclass(frozen=True)
class QualityReport:
    """Quality on one data set.

    Attributes:
        data: Name of the data set: its folder, with those above it where several share that.
        identity: Hash of the pairs' names and file sizes: equal for equal data sets wherever they lie.
        channel: ``rgb`` or ``y``.
        convention: How PSNR and SSIM are computed, in words.
        resolution: As asked for: auto, full or a number.
        rows: One for each method.
    """

    data: str
    identity: str
    channel: str
    convention: str
    resolution: str
    rows: list[QualityRow] = field(default_factory=list)


@dataclass(frozen=True)
class FlickerRow:
    """How unsteady one model is on one video, smoothed over time as given; see `dehaze.flicker`."""

    method: str
    video: str
    frames: int
    smooth: float
    flicker: float


@dataclass(frozen=True)
class Report:
    """One run of `dehaze bench`.

    Attributes:
        command: What was typed.
        date: When, ISO 8601 in UTC.
        environment: On what.
        cost: Costs, if measured.
        yardstick: Time of a fixed piece of work in the same rounds, see `dehaze.bench.cost`.
        quality: Quality on each data set, if measured.
        flicker: Steadiness on video, if measured.
        notes: What a reader must know.
        version: Of this format.
    """

    command: str
    date: str
    environment: Environment
    cost: list[CostRow] = field(default_factory=list)
    yardstick: Timing | None = None
    quality: list[QualityReport] = field(default_factory=list)
    flicker: list[FlickerRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: int = REPORT_VERSION


def to_json(report: Report) -> dict[str, Any]:
    """Turn a report into JSON values."""
    return asdict(report)


def read_report(path: Path) -> Report:
    """Read a report that `dehaze bench --json` wrote.

    Raises:
        DataError: No such file, or not a report of ours, or from a newer version.
    """
    hint = "write one with: dehaze bench --json > report.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the report {path}: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise DataError(f"{path} is not a report: {error}", hint) from error
    version = values.get("version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise DataError(f"{path} is not a report of dehaze bench: it states no version", hint)
    if version > REPORT_VERSION:
        raise DataError(
            f"{path} is a report of version {version}, this dehaze reads up to {REPORT_VERSION}",
            "upgrade with: pip install --upgrade dehaze-cli",
        )
    try:
        report = build(Report, values)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"the report {path} is damaged: {error}", hint) from error
    assert isinstance(report, Report)
    return report
