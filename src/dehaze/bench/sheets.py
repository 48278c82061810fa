"""A report as tables of text, the same for terminal, Markdown and HTML; and as flat CSV of plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dehaze.bench.against import Comparison
from dehaze.bench.complexity import FLOPS_CONVENTION
from dehaze.bench.latency import Timing
from dehaze.bench.paper import METRICS
from dehaze.bench.quality import WORSE_BY, Score, Spread
from dehaze.bench.report import CostRow, QualityReport, Report, Summary
from dehaze.bench.tables import FilledTable

Cell = str | int | float | None

NOTHING = "-"
"""Stands where there is no figure."""

_LONGEST_SOURCE = 30
"""Characters of where a figure came from that stand in its row; longer ones become notes."""


@dataclass(frozen=True)
class Sheet:
    """One table of text.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Cells, one for each column.
        notes: What to know to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())

    def numeric(self, column: int) -> bool:
        """Whether a column holds figures, to be set flush right."""
        cells = [row[column] for row in self.rows if row[column] != NOTHING]
        return all(cell.lstrip("+-")[:1].isdigit() for cell in cells)


def sheets(report: Report) -> list[Sheet]:
    """Everything a report says."""
    found = []
    if report.cost:
        networks = [row for row in report.cost if row.network]
        found += [_network_sheet(networks)] if networks else []
        found.append(_files_sheet(report.cost))
    for quality in report.quality:
        found.append(_quality_sheet(quality))
        if any(row.levels for row in quality.rows):
            found.append(_level_sheet(quality))
        found.append(_extremes_sheet(quality))
    if report.flicker:
        rows = [
            (r.method, r.video, str(r.frames), f"{r.smooth:g}", f"{r.flicker:.3f}") for r in report.flicker
        ]
        found.append(Sheet("Flicker", ("model", "video", "frames", "smooth", "flicker"), rows))
    return found


def _network_sheet(rows: Sequence[CostRow]) -> Sheet:
    columns = (
        "method",
        "picture",
        "works at",
        "parameters",
        "MB",
        "GFLOPs",
        "precision",
        "batch",
        "network ms",
        "p95 ms",
        "images/s",
    )
    cells = [
        (
            row.method,
            f"{row.width} x {row.height}",
            f"{row.working_width} x {row.working_height}",
            number(row.parameters, ",d"),
            number(row.bytes / 1e6 if row.bytes else None, ".3f"),
            number(row.gflops, ".3g"),
            row.precision,
            str(row.batch),
            _ms(row.network),
            _p95(row.network),
            number(row.network_rate, ".3g"),
        )
        for row in rows
    ]
    notes = [
        FLOPS_CONVENTION,
        "network ms: one batch through the network alone, on tensors that lie on the device",
    ]
    return Sheet("Cost of the network", columns, cells, notes)


def _files_sheet(rows: Sequence[CostRow]) -> Sheet:
    columns = (
        "method",
        "picture",
        "decode ms",
        "dehaze ms",
        "encode ms",
        "total ms",
        "p95 ms",
        "images/s",
        "start-up s",
        "peak MB",
        "peak GPU MB",
    )
    cells = [
        (
            row.method,
            f"{row.width} x {row.height}",
            _ms(row.decode),
            _ms(row.dehaze),
            _ms(row.encode),
            _ms(row.whole),
            _p95(row.whole),
            number(row.whole_rate, ".3g"),
            number(row.startup_s, ".2f"),
            number(row.memory_mb, ".0f"),
            number(row.device_memory_mb, ".0f"),
        )
        for row in rows
    ]
    runs = sorted({row.whole.runs for row in rows if row.whole})
    notes = [
        f"JPEG to JPEG in memory, one picture at a time; medians of {runs[0]} to {runs[-1]} runs in turn"
    ]
    if any(row.startup_s for row in rows):
        notes.append(
            "start-up: a fresh process, from its start to one clear picture, as for 'dehaze run'; "
            "peak: of that process"
        )
    return _without_empty_columns(Sheet("From file to file", columns, cells, notes))


def _quality_sheet(quality: QualityReport) -> Sheet:
    columns = ("method", "PSNR dB", "std", "95 % interval", "SSIM", "std", "95 % interval", "worse", "of")
    cells = [
        (
            row.method,
            *_spread(row.overall.psnr, ".2f"),
            *_spread(row.overall.ssim, ".4f"),
            str(row.overall.worse),
            str(row.overall.pictures),
        )
        for row in quality.rows
    ]
    notes = [
        quality.convention,
        f"worse: pictures left more than {WORSE_BY:g} dB farther from the truth than untouched",
        "interval: of the mean, bootstrap over scenes",
    ]
    return Sheet(f"Quality on {quality.data}", columns, cells, notes)


def _level_sheet(quality: QualityReport) -> Sheet:
    levels = list(quality.rows[0].levels)
    cells = [
        (row.method, *(f"{s.psnr.mean:.2f} / {s.ssim.mean:.4f}" for s in row.levels.values()))
        for row in quality.rows
    ]
    counts = "; ".join(f"{level}: {s.pictures}" for level, s in quality.rows[0].levels.items())
    return Sheet(
        "PSNR / SSIM by haze level", ("method", *levels), cells, [f"pictures at each level: {counts}"]
    )


def _extremes_sheet(quality: QualityReport) -> Sheet:
    def cell(score: Score) -> str:
        return f"{score.name} ({score.psnr:.2f} dB, {round(score.gain, 2) + 0:+.2f})"

    cells = [(row.method, cell(row.quality.best), cell(row.quality.worst)) for row in quality.rows]
    return Sheet("Best and worst picture", ("method", "best", "worst"), cells)


def table_sheet(table: FilledTable) -> Sheet:
    """One of the paper's tables, theirs and ours side by side."""
    pairs = [(metric, whose) for metric in table.metrics for whose in ("paper", "ours")]
    told = list(dict.fromkeys(row.source for row in table.rows if len(row.source) > _LONGEST_SOURCE))
    columns = ["model", *(f"{METRICS[metric]}: {whose}" for metric, whose in pairs), "ours from"]
    cells = [
        (
            row.label,
            *(
                _figure(metric, (row.paper if whose == "paper" else row.ours).get(metric))
                for metric, whose in pairs
            ),
            row.source if row.source not in told else f"({told.index(row.source) + 1})",
        )
        for row in table.rows
    ]
    notes = [table.note] if table.note else []
    notes += [f"{row.label}: {row.note}" for row in table.rows if row.note]
    notes += [f"({number}) {source}" for number, source in enumerate(told, 1)]
    return Sheet(f"Table {table.number}: {table.title}", columns, cells, notes)


def comparison_sheet(comparison: Comparison) -> Sheet:
    """What changed, what did not."""
    changed = [c for c in comparison.changes if c.verdict != "same"]
    cells = [
        (c.subject, c.figure, f"{c.before:.6g}", f"{c.now:.6g}", f"{100 * c.increase:+.1f} %", c.verdict)
        for c in changed
    ]
    same = len(comparison.changes) - len(changed)
    columns = ("what", "figure", "report", "now", "cost or error", "verdict")
    return Sheet("Against the report", columns, cells, [f"{same} figures are the same within noise"])


def markdown(found: Sequence[Sheet], heading: str, lines: Sequence[str]) -> str:
    """Render sheets as Markdown (GitHub's tables)."""
    parts = [f"# {heading}", "", *(f"* {line}" for line in lines)]
    for sheet in found:
        parts += ["", f"## {sheet.title}", "", _markdown_row(sheet.columns)]
        rule = ["--:" if sheet.numeric(i) else "---" for i in range(len(sheet.columns))]
        parts.append(_markdown_row(rule))
        parts += [_markdown_row(row) for row in sheet.rows]
        parts += ["", *(f"* {note}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def report_csv(report: Report) -> str:
    """Every figure as plain numbers, in one table.

    The column ``kind`` says what a row is: cost (of a method on a size), quality (of a method on the data
    set), level (the same at one haze level), picture (of a method on one picture) or flicker (on a video).
    """
    rows = [*_cost_records(report), *_quality_records(report)]
    rows += [
        {
            "kind": "flicker",
            "method": r.method,
            "video": r.video,
            "frames": r.frames,
            "smooth": r.smooth,
            "flicker": r.flicker,
        }
        for r in report.flicker
    ]
    return _csv(rows)


def tables_csv(tables: Sequence[FilledTable]) -> str:
    """The paper's tables, one line for each row and figure."""
    return _csv(
        [
            {
                "table": table.number,
                "row": row.label,
                "figure": metric,
                "paper": row.paper.get(metric),
                "ours": row.ours.get(metric),
                "source": row.source,
            }
            for table in tables
            for row in table.rows
            for metric in table.metrics
        ]
    )


def _cost_records(report: Report) -> Iterator[dict[str, Cell]]:
    for row in report.cost:
        record: dict[str, Cell] = {"kind": "cost"}
        for name, value in vars(row).items():
            if isinstance(value, Timing):
                record |= {
                    f"{name}_ms": value.median,
                    f"{name}_p95_ms": value.p95,
                    f"{name}_runs": value.runs,
                }
            else:
                record[name] = value
        yield record


def _quality_records(report: Report) -> Iterator[dict[str, Cell]]:
    for quality in report.quality:
        for row in quality.rows:
            common: dict[str, Cell] = {"method": row.method, "data": quality.data, "channel": quality.channel}
            yield {"kind": "quality", **common, **_summary(row.overall)}
            for level, summary in row.levels.items():
                yield {"kind": "level", **common, "level": level, **_summary(summary)}
            for s in row.scores:
                scores = {"psnr": s.psnr, "ssim": s.ssim, "gain": s.gain}
                yield {"kind": "picture", **common, "picture": s.name, "level": s.level, **scores}


def _summary(summary: Summary) -> dict[str, Cell]:
    values: dict[str, Cell] = {"pictures": summary.pictures, "worse": summary.worse}
    for name, result in (("psnr", summary.psnr), ("ssim", summary.ssim)):
        values |= {
            name: result.mean,
            f"{name}_std": result.std,
            f"{name}_low": result.low,
            f"{name}_high": result.high,
        }
    return values


def _csv(records: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def number(value: float | None, form: str) -> str:
    """Write a figure in a format; nothing is `NOTHING`."""
    return NOTHING if value is None else format(value, form)


def _figure(metric: str, value: float | None) -> str:
    forms = {
        "parameters": ",.0f",
        "psnr": ".2f",
        "ssim": ".4f",
        "size_mb": ".3f",
        "gflops": ".4g",
        "ms": ".1f",
    }
    return number(value, forms[metric])


def milliseconds(value: float | None) -> str:
    """Write a time with about three digits; nothing is `NOTHING`."""
    return number(value, ".2f" if value is None or value < 10 else ".1f" if value < 1000 else ".0f")


def _ms(timing: Timing | None) -> str:
    return milliseconds(timing.median if timing else None)


def _p95(timing: Timing | None) -> str:
    return milliseconds(timing.p95 if timing else None)


def _spread(result: Spread, form: str) -> tuple[str, str, str]:
    low, high = format(result.low, form), format(result.high, form)
    return format(result.mean, form), format(result.std, form), f"{low} to {high}"


def _without_empty_columns(sheet: Sheet) -> Sheet:
    kept = [i for i in range(len(sheet.columns)) if any(row[i] != NOTHING for row in sheet.rows)]
    return Sheet(
        sheet.title,
        [sheet.columns[i] for i in kept],
        [[row[i] for i in kept] for row in sheet.rows],
        sheet.notes,
    )
