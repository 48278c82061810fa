"""Quality against cost as one picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from dehaze.bench.latency import Timing
from dehaze.bench.quality import Spread
from dehaze.bench.report import CostRow, Report
from dehaze.errors import UsageError

FORMATS = ("png", "svg")


def check_plot(path: Path, plottable: bool) -> None:
    """Say before the work what would stop the plot after it.

    Args:
        path: The file to write.
        plottable: Whether the run measures both quality and cost.

    Raises:
        UsageError: The format is unknown, quality or cost is missing, or Matplotlib is not installed.
    """
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"cannot plot to {path}: expected a name ending in .png or .svg")
    if not plottable:
        raise UsageError(
            "a plot shows quality against cost: --plot needs --data, and neither --no-cost nor --table"
        )
    _matplotlib()


def plot(report: Report, form: str) -> bytes:
    """Draw PSNR over the time for one picture (log scale), each method labelled.

    Args:
        report: With cost and quality; the first data set and the first size are shown.
        form: ``png`` or ``svg``.

    Raises:
        UsageError: Matplotlib is not installed.
    """
    quality = report.quality[0]
    figure_class = _matplotlib()
    figure = figure_class(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    costs = _first_costs(report)
    drawn = []
    for row in quality.rows:
        cost, psnr = costs.get(row.method), row.overall.psnr
        if row.method == "untouched" or cost is None or cost.dehaze is None:
            axes.axhline(psnr.mean, color="0.5", linestyle="--", label=f"{row.method}, {psnr.mean:.2f} dB")
        else:
            _point(axes, cost.dehaze, psnr)
            drawn.append((cost.dehaze.median, psnr.mean, _label(cost, psnr.mean)))
    _annotate(axes, drawn)
    _scales(axes)
    size = next(iter(costs.values()))
    axes.set_xlabel(f"time to dehaze one {size.width} x {size.height} picture, ms (log scale)")
    axes.set_ylabel(f"PSNR on {quality.data}, dB ({quality.channel.upper()})")
    axes.set_title("Quality against cost; bars: 95 % intervals")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()


def _point(axes: Any, time: Timing, psnr: Spread) -> None:
    """One method, with its intervals."""
    across = [[time.median - time.low], [time.high - time.median]]
    upright = [[max(psnr.mean - psnr.low, 0)], [max(psnr.high - psnr.mean, 0)]]
    axes.errorbar(time.median, psnr.mean, xerr=across, yerr=upright, fmt="o", capsize=3)


def _annotate(axes: Any, drawn: list[tuple[float, float, str]]) -> None:
    """Label points, on whichever side of them has more room."""
    times = [math.log(x) for x, _, _ in drawn]
    for x, y, label in drawn:
        left = math.log(x) > (min(times) + max(times)) / 2
        offset, side = ((-6, 6), "right") if left else ((6, 6), "left")
        axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", ha=side, fontsize=8)


def _scales(axes: Any) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.margins(x=0.25, y=0.2)
    axes.grid(True, which="both", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=8)


def _first_costs(report: Report) -> dict[str, CostRow]:
    """Each method's cost on the first size."""
    first = report.cost[0]
    size = (first.width, first.height)
    return {row.method: row for row in report.cost if (row.width, row.height) == size}


def _label(cost: CostRow, psnr: float) -> str:
    details = [f"{psnr:.2f} dB"]
    details += [f"{cost.parameters:,} parameters"] if cost.parameters else []
    details += [f"{cost.gflops:.3g} GFLOPs"] if cost.gflops else []
    return f"{cost.method}\n{', '.join(details)}"


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    try:
        _matplotlib()
    except UsageError:
        return False
    return True


def _matplotlib() -> Any:
    """Matplotlib's figure class, drawn without any window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need Matplotlib", "install it with: pip install 'dehaze-cli[plot]'"
        ) from error
    return Figure
