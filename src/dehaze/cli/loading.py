"""A model made ready for a command that clears pictures; a download shows its progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.dehazer import Dehazer


def load_dehazer(out: Output, model: str | None, settings: dict[str, Any]) -> Dehazer:
    """Make a dehazer of a model's name and what `options.Inference.settings` gives.

    Raises:
        UsageError: The device is not here, or the combination is not possible.
        ModelError: The model is not available.
    """
    from dehaze import weights
    from dehaze.dehazer import Dehazer
    from dehaze.weights.exported import is_exported
    from dehaze.weights.library import identify

    asked = identify(model)
    if not (isinstance(asked, Path) and is_exported(asked)):  # which must not import PyTorch
        from dehaze.device import resolve_device

        resolve_device(settings["device"])  # before a download
    with out.progress("downloading the model", unit="bytes") as bar:
        loaded = weights.load_to_run(model, progress=bar.update)
    return Dehazer(*loaded, **settings)
