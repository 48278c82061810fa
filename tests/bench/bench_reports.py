"""A report made by hand, and ways to change one figure of it."""

from __future__ import annotations

from dehaze.bench.environment import Environment
from dehaze.bench.latency import Timing
from dehaze.bench.quality import Quality, Score
from dehaze.bench.report import CostRow, FlickerRow, QualityReport, QualityRow, Report

ENVIRONMENT = Environment("Linux x86_64", "Some CPU", 2, 2, 8.0, "cpu", "", "3.11.0", "2.13.0", "0.1.0")


def timing(median: float, spread: float = 0.02) -> Timing:
    return Timing(median, 1.2 * median, median * (1 - spread), median * (1 + spread), 20)


def cost_row(method: str = "student", milliseconds: float = 100.0) -> CostRow:
    return CostRow(
        method=method,
        width=620,
        height=460,
        working_width=620,
        working_height=460,
        batch=1,
        precision="fp32",
        resolution="auto",
        parameters=96_007,
        bytes=400_000,
        gflops=53.43,
        network=timing(0.8 * milliseconds),
        decode=timing(2.0),
        dehaze=timing(milliseconds),
        encode=timing(1.5),
        whole=timing(milliseconds + 3.5),
        startup_s=2.0,
        memory_mb=400.0,
    )


def quality_row(method: str = "student", offset: float = 0.0) -> QualityRow:
    scores = [
        Score(f"hazy/{scene}_{level}.png", 25 + scene % 7 + offset, 0.9, 10 + offset, level, str(scene))
        for scene in range(1400, 1410)
        for level in ("3", "8")
    ]
    return QualityRow.of(method, Quality(scores))


def quality(*rows: QualityRow, identity: str = "abc") -> QualityReport:
    return QualityReport("SOTS/indoor", identity, "rgb", "RGB, per image", "auto", list(rows))


def report() -> Report:
    untouched = CostRow("untouched", 620, 460, 620, 460, 1, "", "auto", whole=timing(3.5))
    return Report(
        command="dehaze bench --data ./RESIDE/SOTS/indoor --json",
        date="2026-01-02T03:04:05+00:00",
        environment=ENVIRONMENT,
        cost=[cost_row(), untouched],
        yardstick=timing(50.0),
        quality=[quality(quality_row(), quality_row("untouched", -10.0))],
        flicker=[FlickerRow("student", "fog.mp4", 100, 0.5, 1.25)],
        notes=["something to know"],
    )
