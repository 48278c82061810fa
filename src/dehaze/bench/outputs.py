"""The files that a run can leave: CSV, Markdown, a plot, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dehaze.bench.dataset import name_of, picture_pair
from dehaze.bench.page import chosen_pictures, page, picture_strip
from dehaze.bench.plot import check_plot, has_matplotlib, plot
from dehaze.bench.quality import Pixels
from dehaze.bench.report import Report
from dehaze.bench.session import Session
from dehaze.bench.sheets import Sheet, markdown, report_csv, sheets, table_sheet, tables_csv
from dehaze.bench.tables import FilledTable
from dehaze.errors import DehazeError, UsageError
from dehaze.parts import write_whole

HEADING = "dehaze bench"

_Strip = tuple[str, list[tuple[str, Pixels]]]


@dataclass(frozen=True)
class Outputs:
    """Where to write; None for not at all.

    Attributes:
        csv: Every figure, flat.
        markdown: The tables.
        plot: Quality against cost, .png or .svg.
        html: One self-contained page.
    """

    csv: Path | None = None
    markdown: Path | None = None
    plot: Path | None = None
    html: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All that will be written."""
        return [p for p in (self.csv, self.markdown, self.plot, self.html) if p is not None]

    def check(self, *, plottable: bool, overwrite: bool) -> None:
        """Say before the work what would stop writing after it.

        Args:
            plottable: Whether the run measures both quality and cost.
            overwrite: Whether files that exist may be replaced.

        Raises:
            UsageError: A file exists or its folder does not, two are one, one is ``-``, or the plot cannot be
                drawn.
        """
        for path in self.paths:
            if str(path) == "-":
                raise UsageError("reports are not written to stdout", "name a file, or use --json")
            if self.paths.count(path) > 1:
                raise UsageError(f"cannot write two things to {path}", "give each a name of its own")
            if not path.parent.is_dir():
                raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
            if path.is_dir():
                raise UsageError(f"cannot write {path}: it is a directory")
            if path.exists() and not overwrite:
                raise UsageError(f"{path} already exists", "replace it with -y, or choose another name")
        if self.plot is not None:
            check_plot(self.plot, plottable)

    def write(self, session: Session) -> None:
        """Write what a run measured.

        Raises:
            DehazeError: A file cannot be written.
        """
        report = session.report
        found, lines = sheets(report), describe(report)
        if self.csv is not None:
            _write(self.csv, report_csv(report))
        if self.markdown is not None:
            _write(self.markdown, markdown(found, HEADING, lines))
        if self.plot is not None:
            _write(self.plot, plot(report, self.plot.suffix.lower().lstrip(".")))
        if self.html is not None:
            drawable = report.quality and report.cost and has_matplotlib()
            chart = plot(report, "svg") if drawable else b""
            _write(self.html, page(HEADING, lines, found, _strips(session), chart))

    def write_tables(self, tables: Sequence[FilledTable]) -> None:
        """Write the paper's tables; there is nothing to plot in them.

        Raises:
            DehazeError: A file cannot be written.
        """
        found: list[Sheet] = [table_sheet(table) for table in tables]
        heading = "The paper's tables, theirs and ours"
        if self.csv is not None:
            _write(self.csv, tables_csv(tables))
        if self.markdown is not None:
            _write(self.markdown, markdown(found, heading, []))
        if self.html is not None:
            _write(self.html, page(heading, [], found))


def describe(report: Report) -> list[str]:
    """What a report was measured on, and how, in lines for people."""
    lines = [report.environment.describe(), f"{report.date}: {report.command}"]
    return [*lines, *report.notes]


def _strips(session: Session) -> list[_Strip]:
    """Each data set's best and worst pictures through every method."""
    methods = {c.name: c.answer for c in session.contenders}
    strips: list[_Strip] = []
    for found, quality in zip(session.data, session.report.quality, strict=True):
        pairs = {name_of(pair, found): pair for pair in found.pairs}
        for name, why in chosen_pictures(quality).items():
            strips.append(picture_strip(picture_pair(pairs[name], found), why, methods, quality))
    return strips


def _write(path: Path, content: str | bytes) -> None:
    try:
        write_whole(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise DehazeError(f"cannot write {path}: {error.strerror or error}") from error
