"""The list of published models: `weights_manifest.json`, read and checked.

The file stands at the root of the source tree and is shipped inside the package; `manifest.schema.json`
beside this module is its JSON schema. `python -m dehaze.weights.update` keeps what can be measured true.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dehaze.errors import ModelError
from dehaze.limits import Reduction

Source = Literal["bundled", "hub"]
Role = Literal["general", "benchmark"]

MANIFEST_VERSION = 1
BUNDLED_DIRECTORY = Path(__file__).parent
"""Where the `.safetensors` files that come with the package lie."""

_SHIPPED = BUNDLED_DIRECTORY / "weights_manifest.json"
_IN_SOURCE_TREE = BUNDLED_DIRECTORY.parents[2] / "weights_manifest.json"


@dataclass(frozen=True)
class ModelEntry:
    """One published model.

    Attributes:
        name: What `-m/--model` takes.
        architecture: Key of `dehaze.models.ARCHITECTURES`.
        source: `bundled` with the package or on the `hub`.
        file: File name in the package, or path inside the Hub repository.
        sha256: Of the file, lower-case hexadecimal.
        bytes: Size of the file.
        parameters: Number of learned values.
        licence: Terms of the weights.
        role: `general` for any picture; `benchmark`, trained on ITS alone, to compare with the literature.
        description: One sentence for people.
        working_size: Long side in pixels of the pictures the network was trained on; None if any size does.
        transfer_radius: Radius in working pixels of the windows over which its answers are averaged.
        reduction: What of a cell a working copy shows: each channel's `mean` or `minimum`.
        second_look: Long side in pixels at which the mirrored picture is looked at, too; None for one look.
        data: What it was trained on, as its checkpoint says.
        metrics: What was measured on -> figures and the command that measured them.
        repository: `owner/name` on the Hub; empty for bundled models.
        revision: The full commit on the Hub; empty for bundled models.
        is_default: Whether this is the model used when none is named.
    """

    name: str
    architecture: str
    source: Source
    file: str
    sha256: str
    bytes: int
    parameters: int
    licence: str
    role: Role
    description: str
    working_size: int | None = None
    transfer_radius: int = 1
    reduction: Reduction = "mean"
    second_look: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    repository: str = ""
    revision: str = ""
    is_default: bool = False


def manifest_path() -> Path:
    """Path of the manifest: the one shipped in the package, else the source tree's."""
    return _SHIPPED if _SHIPPED.is_file() else _IN_SOURCE_TREE


def read_manifest(path: Path | None = None) -> dict[str, ModelEntry]:
    """Read the manifest: model name -> entry, in the file's order.

    Raises:
        ModelError: The file is missing, damaged or from a newer version.
    """
    path = path or manifest_path()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] > MANIFEST_VERSION:
            raise ModelError(
                f"{path} has version {values['version']}, this dehaze reads up to {MANIFEST_VERSION}",
                "upgrade with: pip install --upgrade dehaze-cli",
            )
        return {
            name: ModelEntry(name=name, is_default=name == values["default"], **entry)
            for name, entry in values["models"].items()
        }
    except OSError as error:
        raise ModelError(
            f"cannot read the list of models {path}: {error.strerror or error}", _REINSTALL
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the list of models {path} is damaged: {error}", _REINSTALL) from error


_REINSTALL = "install again with: pip install --force-reinstall dehaze-cli"


def default_entry(manifest: dict[str, ModelEntry]) -> ModelEntry:
    """Return the model used when none is named.

    Raises:
        ModelError: The manifest names no default.
    """
    for entry in manifest.values():
        if entry.is_default:
            return entry
    raise ModelError(
        "no model was named and this installation has no default model",
        "name one with -m NAME, -m FILE.safetensors or -m hf://owner/repo/file.safetensors",
    )


def unknown_name(name: str, manifest: dict[str, ModelEntry]) -> ModelError:
    """Build the error for a name that is not in the manifest: lists the choices, guesses the nearest."""
    nearest = difflib.get_close_matches(name.lower(), {n.lower(): n for n in manifest}, n=1, cutoff=0.5)
    guess = f"; did you mean '{next(n for n in manifest if n.lower() == nearest[0])}'?" if nearest else ""
    choices = ", ".join(manifest) or "none in this installation"
    return ModelError(
        f"no model named '{name}'{guess}",
        f"choose one of: {choices}; or give a .safetensors file or hf://owner/repo/file.safetensors",
    )


def bundled_path(entry: ModelEntry) -> Path:
    """Path of a bundled model's file.

    Raises:
        ModelError: The file is not there.
    """
    path = BUNDLED_DIRECTORY / entry.file
    if not path.is_file():
        raise ModelError(
            f"the file of model '{entry.name}' is missing from the installation: {path}", _REINSTALL
        )
    return path
