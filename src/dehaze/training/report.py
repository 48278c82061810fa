"""Where a run's figures go: a JSONL file always, TensorBoard where it is installed, and whoever listens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dehaze.weights.checkpoint import write_atomically

LOG = "log.jsonl"


class RunReporter:
    """Write figures as they come; see `dehaze.training.loop.Reporter`.

    Args:
        folder: The run's folder.
        listener: Told ``("step" | "validation", figures)``, for a progress view.
        tensorboard: Also write event files and sample pictures, if TensorBoard is installed.
    """

    def __init__(
        self, folder: Path, listener: Callable[[str, dict[str, Any]], None], *, tensorboard: bool = True
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path = folder, folder / LOG
        self._listener = listener
        self._wanted = tensorboard
        self._purge: int | None = None
        self._opened: Any = None

    def step(self, figures: dict[str, float]) -> None:
        """Record a training step."""
        self._record("step", figures)

    def validation(self, figures: dict[str, float], best: bool) -> None:
        """Record a validation."""
        self._record("validation", figures, best=best)

    def samples(self, step: int, rows: dict[str, Tensor]) -> None:
        """Show pictures, (N, 3, H, W) in [0, 1] each, one above the other."""
        if (board := self._board()) is not None:
            for name, pictures in rows.items():
                board.add_images(f"samples/{name}", pictures.detach().float().clamp(0, 1).cpu(), step)

    def rewind(self, step: int) -> None:
        """Forget what was written of later steps: a run that was killed does them again when it goes on."""
        self.close()
        self._purge = step + 1
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            write_atomically(self._path, "".join(f"{line}\n" for line in kept).encode())

    def close(self) -> None:
        """Finish the event file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _board(self) -> Any:
        """TensorBoard's writer, from the first figure on: a request that is refused leaves no file."""
        if self._wanted and self._opened is None:
            self._opened = _board(self._folder, self._purge)
            self._wanted = self._opened is not None
        return self._opened

    def _record(self, event: str, figures: dict[str, float], **more: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 1), **figures, **more})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if (board := self._board()) is not None:
            for key, value in figures.items():
                if key != "step":
                    board.add_scalar(f"{event}/{key}", value, int(figures["step"]))
        self._listener(event, {**figures, **more})


def _step_of(line: str) -> float:
    """A line's step; infinite if the line was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _board(folder: Path, purge_step: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=purge_step)
