"""The tables of the paper, read from `paper.toml` beside this module."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from dehaze.bench.plain import build as from_plain
from dehaze.models import TEACHER_VARIANTS, TeacherConfig, build

METRICS = {
    "parameters": "parameters",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "size_mb": "size, MB",
    "gflops": "GFLOPs",
    "ms": "time, ms",
}
"""Figure -> heading."""

_TEACHERS = TEACHER_VARIANTS | {
    "fsrcnn-4x": TeacherConfig(multi_channel=False, separable=False, scale=4),
}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        key: Names the row in `recorded.json`.
        label: As the paper prints it.
        parameters: As the paper prints it, not rounded by us.
        psnr: In dB.
        ssim: Structural similarity.
        size_mb: Of the weights.
        gflops: By the paper's convention, which it does not name.
        ms: Time for one picture.
        network: Name of our network for this row, see `build_network`; empty if we have none.
        model: Published model that answers the row if no run is recorded; empty if none.
        note: What a reader must know.
    """

    key: str
    label: str
    parameters: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    size_mb: float | None = None
    gflops: float | None = None
    ms: float | None = None
    network: str = ""
    model: str = ""
    note: str = ""

    @property
    def figures(self) -> dict[str, float]:
        """Figure -> what the paper prints, of those it does print."""
        return {name: getattr(self, name) for name in METRICS if getattr(self, name) is not None}


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        number: In the paper.
        title: What it shows.
        rows: Its rows, in order.
        note: What to know to read ours beside theirs.
    """

    number: int
    title: str
    rows: list[PaperRow]
    note: str = ""

    @property
    def metrics(self) -> list[str]:
        """Figures that the table prints, in the order of `METRICS`."""
        return [name for name in METRICS if any(name in row.figures for row in self.rows)]


@cache
def paper_tables() -> dict[int, PaperTable]:
    """Number -> table."""
    values = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))
    tables: list[PaperTable] = from_plain(list[PaperTable], values["table"], "table")
    return {table.number: table for table in tables}


def build_network(name: str) -> nn.Module:
    """Build the network that a row names: a member of the FSRCNN family, or an architecture's default."""
    return build("teacher", _TEACHERS[name]) if name in _TEACHERS else build(name)
