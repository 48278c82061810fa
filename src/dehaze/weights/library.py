"""What a model's name stands for, and every step that can be taken with it: find, fetch, check."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dehaze.errors import ModelError
from dehaze.parts import there
from dehaze.weights import trust
from dehaze.weights.checkpoint import Header, load_checkpoint, read_header, sha256_of
from dehaze.weights.exported import is_exported, read_exported
from dehaze.weights.manifest import ModelEntry, bundled_path, default_entry, read_manifest, unknown_name

if TYPE_CHECKING:
    from dehaze.weights.hub import Address, Progress

State = Literal["ok", "damaged", "missing", "unknown", "not downloaded"]


@dataclass(frozen=True)
class Found:
    """A model whose file is on this machine.

    Attributes:
        name: As it was asked for, or the manifest's name.
        path: The checkpoint.
        sha256: Of the file as it is.
        bytes: Size of the file.
        address: The `hf://` address with the full commit; empty for files that did not come from the Hub.
    """

    name: str
    path: Path
    sha256: str
    bytes: int
    address: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `verify` says of one model.

    Attributes:
        name: Its name, path or address.
        state: `ok`; `damaged`, the file is not what it should be; `missing`, there is none; `unknown`, a
            checkpoint that loads, but whose checksum stands nowhere; or `not downloaded`.
        detail: Why, in a few words; the checksum if all is well.
    """

    name: str
    state: State
    detail: str


def identify(name: str | None = None) -> ModelEntry | Address | Path:
    """Say what a name stands for: an entry of the manifest, a file on the Hub or a file here.

    Args:
        name: What `-m/--model` takes; None for the environment variable `DEHAZE_MODEL`, and after it the
            manifest's default.

    Raises:
        ModelError: None of these.
    """
    if name == "":
        raise ModelError("the model's name is empty", "in a script, look for a variable that is not set")
    manifest = read_manifest()
    name = name or os.environ.get("DEHAZE_MODEL") or default_entry(manifest).name
    if name in manifest:
        return manifest[name]
    if name.startswith("hf:") or "://" in name:
        from dehaze.weights.hub import parse

        return parse(name)
    path = Path(name).expanduser()
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    raise unknown_name(name, manifest)


def peek(model: ModelEntry | Address | Path) -> Header | None:
    """Read the header of a model's file; None for one that may need a download. See `identify`.

    Raises:
        ModelError: It is not a checkpoint this version can read.
    """
    if isinstance(model, Path):
        return _check(model)
    if isinstance(model, ModelEntry) and model.source == "bundled":
        return _check(bundled_path(model))
    return None


def fetch(
    name: str | None = None, *, progress: Progress | None = None, force: bool = False, accept: bool = False
) -> Found:
    """Make sure that a model's file is here and is what it should be; downloads it if it lies on the Hub.

    Args:
        name: See `identify`.
        progress: Called with the bytes that have arrived and their total.
        force: Download even what is in the cache.
        accept: For a file that is in no manifest: take it as it is now, though it has changed.

    Raises:
        ModelError: Unknown name, not to be had, or not a checkpoint this version can read.
    """
    model = identify(name)
    if isinstance(model, Path):
        found = _here(str(model), model)
    elif isinstance(model, ModelEntry) and model.source == "bundled":
        found = _here(model.name, bundled_path(model))
    else:
        found = _from_hub(model, progress, force, accept)
    return found


def _here(name: str, path: Path) -> Found:
    _check(path)
    return Found(name, path, sha256_of(path), path.stat().st_size)


def _check(path: Path) -> Header:
    """Make sure that a file is a model of ours that this version can read."""
    return read_exported(path).header if is_exported(path) else read_header(path)


def _from_hub(model: ModelEntry | Address, progress: Progress | None, force: bool, accept: bool) -> Found:
    from dehaze.weights import hub

    if isinstance(model, ModelEntry):
        name, address = model.name, hub.address_of(model)
        fetched = hub.fetch_entry(model, progress=progress, force=force)
    else:
        name, address = str(model), model
        fetched = hub.fetch_foreign(model, progress=progress, force=force, accept=accept)
    _check(fetched.path)
    size = fetched.path.stat().st_size
    return Found(name, fetched.path, fetched.sha256, size, str(hub.pinned(address, fetched)))


def locate(name: str | None = None) -> Path:
    """Path of a model's file, if it is here; never asks the network.

    Raises:
        ModelError: Unknown name, or not downloaded yet.
    """
    model = identify(name)
    path = _local(model)
    if path is None:
        called = model.name if isinstance(model, ModelEntry) else str(model)
        raise ModelError(f"{called} is not downloaded yet", f"fetch it with: dehaze models pull {called}")
    _check(path)
    return path


def _local(model: ModelEntry | Address | Path) -> Path | None:
    if isinstance(model, Path):
        return model
    if isinstance(model, ModelEntry) and model.source == "bundled":
        return bundled_path(model)
    from dehaze.weights import hub

    return hub.cached(hub.address_of(model) if isinstance(model, ModelEntry) else model)


def is_here(entry: ModelEntry) -> bool:
    """Whether an entry's file is on this machine."""
    try:
        return _local(entry) is not None
    except ModelError:
        return False


def verify(name: str) -> Verdict:
    """Compare a model's file with the checksum in the manifest, or the one recorded on first use; no network.

    Raises:
        ModelError: The name stands for nothing.
    """
    model = identify(name)
    if isinstance(model, Path):
        called, expected = str(model), ""
    elif isinstance(model, ModelEntry):
        called, expected = model.name, model.sha256
    else:
        called = str(model)
        record = trust.known(called)
        expected = record.sha256 if record else ""
    try:
        return _compare(called, _local(model), expected)
    except ModelError as error:
        missing = isinstance(model, Path) and not there(model)
        return Verdict(called, "missing" if missing else "damaged", error.message)


def _compare(name: str, path: Path | None, expected: str) -> Verdict:
    if path is None:
        return Verdict(name, "not downloaded", f"fetch it with: dehaze models pull {name}")
    _check(path)
    found = sha256_of(path)
    if not expected:
        if not is_exported(path):
            load_checkpoint(path)
        return Verdict(name, "unknown", f"sha256 {found}")
    if found != expected:
        return Verdict(name, "damaged", f"sha256 is {found}, expected {expected}")
    return Verdict(name, "ok", f"sha256 {found}")


def everything() -> list[str]:
    """Names of all that can be verified: the manifest's entries, then the files recorded on first use."""
    return [*read_manifest(), *(record.address for record in trust.records())]
