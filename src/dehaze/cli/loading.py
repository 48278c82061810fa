"""A model made ready for a command that clears pictures; a download shows its progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dehaze.errors import UsageError

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.dehazer import Dehazer


def check_request(model: str | None, settings: dict[str, Any]) -> None:
    """Refuse what `load_dehazer` would refuse, as far as that can be told without a download.

    Raises:
        UsageError: The device is not here or does not go with the precision, or the model does not dehaze.
        ModelError: The name stands for no model, or its file here is none.
    """
    from dehaze.weights.checkpoint import check_dehazes
    from dehaze.weights.exported import is_exported
    from dehaze.weights.library import identify, peek

    asked = identify(model)
    exported = isinstance(asked, Path) and is_exported(asked)
    if exported and settings["precision"] not in ("auto", "fp32"):
        raise UsageError(
            f"{asked} computes in fp32; precision {settings['precision']} is not possible",
            "use --precision fp32, or the model's .safetensors file",
        )
    if not exported:
        _check_device(settings["device"], settings["precision"])
    if header := peek(asked):
        check_dehazes(header)


def _check_device(device: str, precision: str) -> None:
    if device in ("auto", "cpu") and precision != "fp16":
        return  # PyTorch takes a second to import
    from dehaze.device import check_precision, resolve_device

    check_precision(precision, resolve_device(device))


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


def say_warnings(out: Output, dehazer: Dehazer) -> None:
    """Say what a dehazer has to warn of so far, each sentence once."""
    for warning in dehazer.warnings:
        out.warning(warning)
