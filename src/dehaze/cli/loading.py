"""A model made ready for a command that clears pictures; a download shows its progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.dehazer import Dehazer

FEW_PHOTOS = 10
"""Up to so many, NumPy is done first: PyTorch computes faster, but takes more than a second to import."""


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
        photos: How many pictures it is to clear; None if that is not known, or many.

    Raises:
        UsageError: The device is not here, or the combination is not possible.
        ModelError: The model is not available.
    """
    from dehaze import weights
    from dehaze.dehazer import Dehazer

    check_request(model, settings)  # before a download
    few = photos is not None and photos <= FEW_PHOTOS
    with out.progress("downloading the model", unit="bytes") as bar:
        loaded = weights.load_to_run(model, progress=bar.update, arrays=few and _suits_numpy(settings))
    return Dehazer(*loaded, **settings)


def _suits_numpy(settings: dict[str, Any]) -> bool:
    """Whether nothing is asked for that only PyTorch can do, or does much faster."""
    return (
        settings["device"] in ("auto", "cpu")
        and settings["precision"] in ("auto", "fp32")
        and settings["resolution"] == "auto"
    )
