"""A model made ready for a command that clears pictures; a download shows its progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.dehazer import Dehazer


def check_request(model: str | None, settings: dict[str, Any]) -> None:
    """Refuse what `load_dehazer` would refuse, as far as that can be told without a download.

    Raises:
        UsageError: The device is not here.
        ModelError: The name stands for no model, or its file here is none.
    """
    from dehaze.weights.exported import is_exported
    from dehaze.weights.library import check, identify

    asked = identify(model)
    exported = isinstance(asked, Path) and is_exported(asked)
    if not exported and settings["device"] not in ("auto", "cpu"):  # PyTorch takes a second to import
        from dehaze.device import resolve_device

        resolve_device(settings["device"])
    check(asked)


def load_dehazer(
    out: Output, model: str | None, settings: dict[str, Any], *, photos: int | None = None
) -> Dehazer:
    """Make a dehazer of a model's name and what `options.Inference.settings` gives.

    Args:
        out: Where a download shows its progress.
        model: See `dehaze.weights.resolve`.
        settings: Keyword arguments of `Dehazer`.
        photos: How many it is to clear; None if that is not known.

    Raises:
        UsageError: The device is not here, or the combination is not possible.
        ModelError: The model is not available.
    """
    from dehaze.dehazer import from_name

    check_request(model, settings)  # before a download
    with out.progress("downloading the model", unit="bytes") as bar:
        return from_name(model, pictures=photos, progress=bar.update, **settings)
