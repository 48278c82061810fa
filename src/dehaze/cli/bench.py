"""`dehaze bench`: what models cost, how well they do, and the paper's tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dehaze.cli import options as opt
from dehaze.cli.errors import ExitStatus
from dehaze.errors import DataError, UsageError

if TYPE_CHECKING:
    from dehaze.bench.against import Comparison
    from dehaze.bench.outputs import Outputs
    from dehaze.bench.report import Report
    from dehaze.bench.session import Plan
    from dehaze.bench.sheets import Sheet
    from dehaze.cli.output import Output

WHAT, FILES = "What to measure", "Reports"
"""Panels of --help."""

DEFAULT_SIZE = "620x460"


@opt.grouped
def bench(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|PATH|hf://...",
            show_default=False,
            rich_help_panel=opt.MODEL,
            help="As for 'dehaze run'; several may be given. Without it: the model in the box.",
        ),
    ] = None,
    device: opt.DeviceOption = "auto",
    precision: opt.PrecisionOption = "auto",
    resolution: opt.ResolutionOption = "auto",
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            metavar="WxH",
            show_default=DEFAULT_SIZE,
            rich_help_panel=WHAT,
            help="Size of the pictures for cost; several may be given.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, rich_help_panel=WHAT, help="Pictures in one network call.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, rich_help_panel=WHAT, help="Time to spend on each latency.")
    ] = 3.0,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", rich_help_panel=WHAT, help="Measure cost.")
    ] = True,
    startup: Annotated[
        bool,
        typer.Option(
            "--startup/--no-startup",
            rich_help_panel=WHAT,
            help="Start a fresh process for each method: start-up time and peak memory.",
        ),
    ] = True,
    references: Annotated[
        bool,
        typer.Option(
            "--references/--no-references",
            rich_help_panel=WHAT,
            help="Measure untouched, dark channel prior and AOD-Net as well.",
        ),
    ] = True,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="DIR",
            show_default=False,
            rich_help_panel=WHAT,
            help="Measure PSNR and SSIM on a data set laid out as for training; several may be given.",
        ),
    ] = None,
    channel: Annotated[
        Literal["rgb", "y"],
        typer.Option("--channel", rich_help_panel=WHAT, help="What PSNR and SSIM compare: RGB or luma."),
    ] = "rgb",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            show_default=False,
            rich_help_panel=WHAT,
            help="Take only this many pairs of each data set, spread evenly.",
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Option(
            "--video",
            metavar="FILE",
            show_default=False,
            rich_help_panel=WHAT,
            help="Measure flicker on a video, frame by frame and smoothed.",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            min=0,
            show_default=False,
            rich_help_panel=WHAT,
            help="Seconds of the video to look at.",
        ),
    ] = None,
    tables: Annotated[
        list[int] | None,
        typer.Option(
            "--table",
            metavar="1..9",
            show_default=False,
            rich_help_panel=WHAT,
            help="Show the paper's table N, its figures and ours, and nothing else; several may be given.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", show_default=False, rich_help_panel=FILES, help="All figures, one a row."
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            show_default=False,
            rich_help_panel=FILES,
            help="The tables, for a README.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png|.svg",
            show_default=False,
            rich_help_panel=FILES,
            help="Quality against cost; needs --data and the extra 'plot'.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            show_default=False,
            rich_help_panel=FILES,
            help="One self-contained page with all tables and the best and worst pictures.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            show_default=False,
            rich_help_panel=FILES,
            help="Compare with a report written by --json; exit status 1 if something got worse.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=0,
            rich_help_panel=FILES,
            help="Accepted increase of a cost or an error: 0.05 is 5 %, or 0.21 dB of PSNR.",
        ),
    ] = 0.05,
    overwrite: opt.ReplaceOption = False,
    *,
    messages: opt.Messages,
) -> None:
    """Measure what models cost and how well they do, beside points of reference.

    \b
      dehaze bench                                      parameters, GFLOPs, latency, memory
      dehaze bench --device cuda -m student -m student-lite --size 620x460 --size 1920x1080
      dehaze bench --data ./RESIDE/SOTS/indoor          PSNR and SSIM too
      dehaze bench --data ./SOTS/indoor --html report.html --plot quality.svg
      dehaze bench --json > report.json; dehaze bench --against report.json
      dehaze bench --table 5                            the paper's figures and ours
    """
    out = messages.start()
    from dehaze.bench.outputs import Outputs

    outputs = Outputs(csv, markdown, plot, html)
    outputs.check(plottable=bool(data) and cost and not tables, overwrite=overwrite)
    if tables:
        measuring = {
            "--model": models,
            "--data": data,
            "--limit": limit,
            "--size": sizes,
            "--video": video,
            "--duration": duration,
            "--against": against,
        }
        if useless := [option for option, value in measuring.items() if value is not None]:
            raise UsageError(
                "--table shows figures that are there already and measures none",
                f"leave {' and '.join(useless)} away",
            )
        show_tables(out, tables, device, outputs)
        return
    from dehaze.bench.cost import CostSettings
    from dehaze.bench.session import Plan

    working = opt.resolution(resolution)
    pictures = dict.fromkeys(opt.size(text, example=DEFAULT_SIZE) for text in sizes or [DEFAULT_SIZE])
    plan = Plan(
        models=models or [None],
        references=references,
        device=device,
        precision=precision,
        resolution=working,
        cost=CostSettings(list(pictures), batch_size, seconds, working, startup) if cost else None,
        data=list({root.resolve(): root for root in data or []}.values()),
        channel=channel,
        limit=limit,
        video=video,
        video_seconds=duration,
        command=shlex.join(["dehaze", *sys.argv[1:]]),
    )
    raise typer.Exit(measure(out, plan, outputs, against, tolerance))


def measure(out: Output, plan: Plan, outputs: Outputs, against: Path | None, tolerance: float) -> ExitStatus:
    """Do what was asked, show it, write it; return the exit status."""
    from dehaze.bench.against import compare
    from dehaze.bench.outputs import describe
    from dehaze.bench.report import read_report, to_json
    from dehaze.bench.session import run
    from dehaze.bench.sheets import comparison_sheet, sheets

    claim = read_report(against) if against else None
    session = run(plan, out.progress)
    comparison = compare(claim, session.report, tolerance) if claim else None
    if not out.as_json:
        for line in describe(session.report):
            out.data(line)
        found = sheets(session.report) + ([comparison_sheet(comparison)] if comparison else [])
        show(out, found)
    out.record(to_json(session.report) | ({"against": _plain(comparison)} if comparison else {}))
    outputs.write(session)
    _say_written(out, outputs)
    return judge(out, claim, comparison, tolerance) if claim and comparison else ExitStatus.DONE


def judge(out: Output, claim: Report, comparison: Comparison, tolerance: float) -> ExitStatus:
    """Say whether a comparison holds.

    Raises:
        DataError: The claim and this run have not one figure in common.
    """
    for note in comparison.notes:
        out.note(note)
    if not comparison.changes:
        raise DataError(
            "nothing to compare: the report and this run have no figure in common",
            f"run it as the report was: {claim.command}",
        )
    worse = comparison.regressions
    if not worse:
        out.line(f"nothing got worse by more than {100 * tolerance:g} %")
        return ExitStatus.DONE
    names = "; ".join(f"{c.subject}: {c.figure} {c.before:.6g} -> {c.now:.6g}" for c in worse)
    out.error(f"worse than the report by more than {100 * tolerance:g} %: {names}")
    return ExitStatus.FAILED


def show_tables(out: Output, numbers: list[int], device: str, outputs: Outputs) -> None:
    """Show the paper's tables."""
    from dataclasses import asdict

    from dehaze.bench.sheets import table_sheet
    from dehaze.bench.tables import fill_table
    from dehaze.device import resolve_device

    resolve_device(device)
    filled = [fill_table(number, device=device) for number in numbers]
    if not out.as_json:
        show(out, [table_sheet(table) for table in filled])
    out.record({"tables": [asdict(table) for table in filled]})
    outputs.write_tables(filled)
    _say_written(out, outputs)


def _say_written(out: Output, outputs: Outputs) -> None:
    for path in outputs.paths:
        out.line(f"wrote {path}")


def show(out: Output, found: list[Sheet]) -> None:
    """Write tables to stdout."""
    for sheet in found:
        out.data(f"\n{sheet.title}")
        aligned = [_aligned(sheet, column) for column in range(len(sheet.columns))]
        rows = list(zip(*aligned, strict=True))
        out.table(rows[0], rows[1:])
        for note in sheet.notes:
            out.data(f"  {note}")


def _aligned(sheet: Sheet, column: int) -> list[str]:
    """Heading and cells of a column, figures flush right."""
    cells = [sheet.columns[column], *(row[column] for row in sheet.rows)]
    if not sheet.numeric(column):
        return cells
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _plain(comparison: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(comparison)
