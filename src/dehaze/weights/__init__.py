"""Where weights come from: checkpoint files, the manifest, the bundled models and the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dehaze.weights.checkpoint import Header, load_checkpoint, read_header
from dehaze.weights.manifest import ModelEntry, bundled_path, default_entry, read_manifest, unknown_name

if TYPE_CHECKING:
    from torch import nn

CHECKPOINT_SUFFIX = ".safetensors"


def resolve(name: str | None = None) -> Path:
    """Turn what a user calls a model into the path of a checkpoint of ours; fetches it if it lies on the Hub.

    Args:
        name: A name from the manifest, a path of a `.safetensors` file, or None for the environment variable
            `DEHAZE_MODEL` and after it the manifest's default.

    Raises:
        ModelError: Unknown name, no such file, or not a checkpoint this version can read.
    """
    manifest = read_manifest()
    name = name or os.environ.get("DEHAZE_MODEL") or default_entry(manifest).name
    path = _path_of(name, manifest)
    read_header(path)
    return path


def _path_of(name: str, manifest: dict[str, ModelEntry]) -> Path:
    if name in manifest:
        return bundled_path(manifest[name])
    path = Path(name).expanduser()
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    raise unknown_name(name, manifest)


def load(name: str | None = None, device: str = "cpu") -> tuple[nn.Module, Header]:
    """Load a model by name, path or address (see `resolve`); returned in evaluation mode with its header.

    Raises:
        ModelError: See `resolve`; also when weights and architecture do not agree.
    """
    return load_checkpoint(resolve(name), device)


def list_models() -> list[ModelEntry]:
    """Every published model, in the manifest's order."""
    return list(read_manifest().values())


__all__ = ["CHECKPOINT_SUFFIX", "Header", "ModelEntry", "list_models", "load", "resolve"]
