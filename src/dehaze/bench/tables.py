"""The paper's tables with our figures beside theirs, each with where it came from; nothing is invented.

Parameters, operations and size are counted now; times are measured now; PSNR and SSIM come from published
checkpoints or from recorded training runs. Where there is neither, the row says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from safetensors.torch import save

from dehaze.bench.complexity import flops
from dehaze.bench.cost import network_case
from dehaze.bench.latency import interleave
from dehaze.bench.paper import PaperRow, PaperTable, build_network, paper_tables
from dehaze.bench.recorded import Run, read_recorded
from dehaze.dehazer import Dehazer
from dehaze.errors import UsageError
from dehaze.models import architecture_of, count_parameters
from dehaze.weights import Header, ModelEntry, list_models

NOT_OURS = "not re-implemented here"
NOT_TRAINED = "not trained"

SIZE = (620, 460)
"""Width and height for operations and times."""

_SECONDS = 3.0


@dataclass(frozen=True)
class TableRow:
    """One row, theirs and ours.

    Attributes:
        label: As the paper prints it.
        paper: Figure -> theirs.
        ours: Figure -> ours; a figure we do not have is missing.
        source: Where ours came from, or why there is none.
        note: What a reader must know.
    """

    label: str
    paper: dict[str, float]
    ours: dict[str, float]
    source: str
    note: str = ""


@dataclass(frozen=True)
class FilledTable:
    """One of the paper's tables with our figures.

    Attributes:
        number: In the paper.
        title: What it shows.
        metrics: Figures it prints, see `dehaze.bench.paper.METRICS`.
        rows: Its rows.
        note: What to know to read it.
    """

    number: int
    title: str
    metrics: list[str]
    rows: list[TableRow]
    note: str


def fill_table(
    number: int,
    *,
    device: str = "auto",
    recorded: Sequence[Run] | None = None,
    published: Sequence[ModelEntry] | None = None,
) -> FilledTable:
    """Put our figures beside the paper's.

    Args:
        number: 1 to 9.
        device: Where to measure times (table 9 only).
        recorded: Training runs; None for those that came with the package.
        published: Models; None for the manifest's.

    Raises:
        UsageError: The paper has no such table, or the device is not there.
    """
    tables = paper_tables()
    if number not in tables:
        raise UsageError(f"the paper has no table {number}: expected {min(tables)} to {max(tables)}")
    table = tables[number]
    runs = read_recorded() if recorded is None else recorded
    models = {m.name: m for m in (list_models() if published is None else published)}
    times = _measure_times(table, device) if "ms" in table.metrics else {}
    rows = [_row(table, row, runs, models, times) for row in table.rows]
    return FilledTable(number, table.title, table.metrics, rows, table.note)


def _row(
    table: PaperTable,
    row: PaperRow,
    runs: Sequence[Run],
    models: Mapping[str, ModelEntry],
    times: Mapping[str, tuple[float, str]],
) -> TableRow:
    if not row.network:
        return TableRow(row.label, row.figures, {}, NOT_OURS, row.note)
    ours = _counted(table, row)
    sources = ["counted now"] if ours else []
    if row.key in times:
        ours["ms"], where = times[row.key]
        sources.append(f"timed now on {where}")
    if "psnr" in table.metrics:
        figures, source = _trained(table, row, runs, models)
        ours |= figures
        sources.append(source)
    return TableRow(row.label, row.figures, ours, "; ".join(sources), row.note)


def _counted(table: PaperTable, row: PaperRow) -> dict[str, float]:
    """What the network itself tells, of what the table prints."""
    model = build_network(row.network)
    counts: dict[str, float] = {"parameters": count_parameters(model)}
    if "gflops" in table.metrics:
        counts["gflops"] = flops(model, SIZE[1], SIZE[0]) / 1e9
        counts["size_mb"] = len(save(model.state_dict())) / 1e6
    return {name: value for name, value in counts.items() if name in table.metrics}


def _trained(
    table: PaperTable, row: PaperRow, runs: Sequence[Run], models: Mapping[str, ModelEntry]
) -> tuple[dict[str, float], str]:
    """PSNR and SSIM of recorded runs or of a published model, and where they came from."""
    mine = [r for r in runs if (r.table, r.row) == (table.number, row.key)]
    measured = [r for r in mine if r.figures]
    if measured:
        shared = [m for m in table.metrics if all(m in r.figures for r in measured)]
        figures = {m: fmean(r.figures[m] for r in measured) for m in shared}
        label = f"mean of {len(measured)} runs: " if len(measured) > 1 else ""
        return figures, label + " | ".join(_told(r, measured[0]) for r in measured)
    for name in [*(r.checkpoint for r in mine), row.model]:
        if name in models:
            return _published(models[name], table)
    return {}, NOT_TRAINED


def _told(run: Run, first: Run) -> str:
    """Where a run's figures came from; in short if it repeats the first."""
    return f"the same with seed {run.seed}" if run is not first and run.repeats(first) else run.provenance()


def _published(entry: ModelEntry, table: PaperTable) -> tuple[dict[str, float], str]:
    """What a model's checkpoint says of itself on SOTS indoor."""
    for on, figures in entry.metrics.items():
        if "sots" in on.lower() and "indoor" in on.lower():
            known = {m: float(figures[m]) for m in table.metrics if m in figures}
            return known, f"model {entry.name}, {on}: {figures.get('command', 'command not recorded')}"
    return {}, f"model {entry.name} states no figures on SOTS indoor"


def _measure_times(table: PaperTable, device: str) -> dict[str, tuple[float, str]]:
    """Time every network of ours in a table: row -> median in ms, and on what."""
    cases, where = {}, ""
    for row in table.rows:
        if row.network:
            model = build_network(row.network)
            header = Header(name=row.label, architecture=architecture_of(model))
            dehazer = Dehazer(model, header, device=device, precision="fp32", resolution="full")
            cases[row.key] = network_case(dehazer, SIZE, 1)
            where = _device_name(dehazer.info.device)
    times = interleave(cases, seconds=_SECONDS)
    return {key: (stages["network"].median, where) for key, stages in times.items()}


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU thread(s)" if device == "cpu" else device
