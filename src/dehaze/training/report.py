"""Where a run's figures go: a JSONL file always, TensorBoard where it is installed, and whoever listens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

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
        self._path = folder / LOG
        self._listener = listener
        self._board = _board(folder) if tensorboard else None

    def step(self, figures: dict[str, float]) -> None:
        """Record a training step."""
        self._record("step", figures)

    def validation(self, figures: dict[str, float], best: bool) -> None:
        """Record a validation."""
        self._record("validation", figures, best=best)

    def samples(self, step: int, rows: dict[str, Tensor]) -> None:
        """Show pictures, (N, 3, H, W) in [0, 1] each, one above the other."""
        if self._board is not None:
            for name, pictures in rows.items():
                self._board.add_images(f"samples/{name}", pictures.detach().float().clamp(0, 1).cpu(), step)

    def close(self) -> None:
        """Finish the event file."""
        if self._board is not None:
            self._board.close()

    def _record(self, event: str, figures: dict[str, float], **more: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 1), **figures, **more})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._board is not None:
            for key, value in figures.items():
                if key != "step":
                    self._board.add_scalar(f"{event}/{key}", value, int(figures["step"]))
        self._listener(event, {**figures, **more})


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")
