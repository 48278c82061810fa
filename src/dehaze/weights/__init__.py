"""Where weights come from: checkpoint files, the manifest, the bundled models and the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dehaze.weights.arrays import Arrays, read_arrays
from dehaze.weights.checkpoint import Header, load_checkpoint
from dehaze.weights.exported import Exported, is_exported, read_exported
from dehaze.weights.library import fetch
from dehaze.weights.manifest import ModelEntry, read_manifest

if TYPE_CHECKING:
    from torch import nn

    from dehaze.weights.hub import Progress


def resolve(name: str | None = None, *, progress: Progress | None = None) -> Path:
    """Turn what a user calls a model into the path of a checkpoint of ours; fetches it if it lies on the Hub.

    Args:
        name: A name from the manifest, a path of a `.safetensors` file or of an exported `.onnx` network, an
            address `hf://owner/repo/file.safetensors@revision`, or None for the environment variable
            `DEHAZE_MODEL` and after it the manifest's default.
        progress: Called during a download with the bytes that have arrived and their total (None if unknown).

    Raises:
        ModelError: Unknown name, not to be had, or not a checkpoint this version can read.
    """
    return fetch(name, progress=progress).path


def load(
    name: str | None = None, device: str = "cpu", *, progress: Progress | None = None
) -> tuple[nn.Module, Header]:
    """Load a network by name, path or address (see `resolve`); returned in evaluation mode with its header.

    Raises:
        ModelError: See `resolve`; also when weights and architecture do not agree, or for an exported
            network.
    """
    return load_checkpoint(resolve(name, progress=progress), device)


def load_to_run(
    name: str | None = None, *, progress: Progress | None = None, arrays: bool = False
) -> tuple[nn.Module | Exported | Arrays, Header]:
    """Load what `dehaze.dehazer.Dehazer` needs: a network, or what an exported one says of itself.

    Args:
        name: See `resolve`.
        progress: See `resolve`.
        arrays: Rather than import PyTorch, load arrays for NumPy if the network is one that it computes
            (`dehaze.weights.arrays`).

    Raises:
        ModelError: See `resolve`; also when weights and architecture do not agree.
    """
    path = resolve(name, progress=progress)
    if is_exported(path):
        exported = read_exported(path)
        return exported, exported.header
    read = read_arrays(path) if arrays else None
    return load_checkpoint(path) if read is None else (read, read.header)


def list_models() -> list[ModelEntry]:
    """Every published model, in the manifest's order."""
    return list(read_manifest().values())


__all__ = ["Arrays", "Exported", "Header", "ModelEntry", "list_models", "load", "load_to_run", "resolve"]
