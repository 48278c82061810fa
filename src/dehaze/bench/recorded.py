"""Training runs of ours that answer rows of the paper's tables: `recorded.json` beside this module.

One object a run; a row may have several (seeds). Example:

    {"table": 6, "row": "lr", "figures": {"psnr": 25.1, "ssim": 0.92},
     "command": "dehaze distill --data ./RESIDE --guidance lr", "commit": "1a2b3c4", "seed": 0,
     "minutes": 20.0, "data": "SOTS indoor, 50 pairs", "note": ""}

Instead of figures a run may name a published model, whose checkpoint then states them:

    {"table": 5, "row": "student", "checkpoint": "student"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from dehaze.bench.plain import build

RECORDED_VERSION = 1
_FILE = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        table: Of the paper.
        row: Key of the table's row, see `dehaze.bench.paper`.
        command: What was typed, with the code of `commit`; recipes and the bundled teacher may have
            changed since.
        figures: Metric (``psnr`` in dB, ``ssim``) -> what was measured.
        checkpoint: Published model that holds the figures instead; empty if none.
        commit: Of the code.
        seed: Of the run.
        minutes: Of training.
        data: What the figures were measured on.
        note: What a reader must know.
    """

    table: int
    row: str
    command: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    commit: str = ""
    seed: int = 0
    minutes: float = 0.0
    data: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if bool(self.figures) == bool(self.checkpoint):
            raise ValueError(f"table {self.table}, row '{self.row}': give either figures or a checkpoint")
        if self.figures and not (self.command and self.commit):
            raise ValueError(f"table {self.table}, row '{self.row}': figures need their command and commit")

    def repeats(self, other: Run) -> bool:
        """Whether this is another run with nothing but another seed."""
        command = self.command.replace(f"--seed {self.seed}", f"--seed {other.seed}")
        alike = replace(self, command=command, seed=other.seed, figures=other.figures, minutes=other.minutes)
        return alike == other

    def provenance(self) -> str:
        """Where the figures came from, in words."""
        parts = [self.command, self.data, f"commit {self.commit}", f"seed {self.seed}"]
        parts += [f"{self.minutes:g} min"] if self.minutes else []
        return "; ".join(part for part in [*parts, self.note] if part)


def read_recorded(path: Path = _FILE) -> list[Run]:
    """Read recorded runs.

    Raises:
        ValueError: The file is from a newer version, or a run lacks what makes it checkable.
        TypeError: The file is damaged.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    if values["version"] > RECORDED_VERSION:
        raise ValueError(f"{path} has version {values['version']}, expected at most {RECORDED_VERSION}")
    runs: list[Run] = build(list[Run], values["runs"], "runs")
    return runs
