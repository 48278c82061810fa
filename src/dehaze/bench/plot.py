"""Quality against cost as one picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from dehaze.bench.report import CostRow, Report
from dehaze.errors import UsageError

FORMATS = ("png", "svg")


def check_plot(path: Path, has_quality: bool) -> None:
    """Say before the work what would stop the plot after it.

    Raises:
        UsageError: The format is unknown, there is no quality to plot, or Matplotlib is not installed.
    """
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"cannot plot to {path}: expected a name ending in .png or .svg")
    if not has_quality:
        raise UsageError("a plot shows quality against cost: --plot needs --data", "add --data DIR")
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
    for row in quality.rows:
        cost, psnr = costs.get(row.method), row.overall.psnr
        if row.method == "untouched" or cost is None or cost.dehaze is None:
            axes.axhline(psnr.mean, color="0.5", linestyle="--", linewidth=1)
            axes.annotate(f"{row.method} {psnr.mean:.2f} dB", (0.01, psnr.mean), **_beside("axes fraction"))
            continue
        time = cost.dehaze
        axes.errorbar(
            time.median,
            psnr.mean,
            xerr=[[time.median - time.low], [time.high - time.median]],
            yerr=[[max(psnr.mean - psnr.low, 0)], [max(psnr.high - psnr.mean, 0)]],
            fmt="o",
            capsize=3,
        )
        axes.annotate(_label(cost, psnr.mean), (time.median, psnr.mean), **_beside("data"))
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)
    axes.grid(True, which="both", alpha=0.25)
    size = next(iter(costs.values()))
    axes.set_xlabel(f"time to dehaze one {size.width} x {size.height} picture, ms (log scale)")
    axes.set_ylabel(f"PSNR on {quality.data}, dB ({quality.channel.upper()})")
    axes.set_title("Quality against cost; bars: 95 % intervals")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()


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


def _beside(x_coordinates: str) -> dict[str, Any]:
    """Place a label a little above and to the right of its point."""
    return {
        "xycoords": (x_coordinates, "data"),
        "xytext": (6, 6),
        "textcoords": "offset points",
        "fontsize": 8,
    }


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
