"""Checkpoints on the Hugging Face Hub, through its own client and in its own cache.

`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the client's time-outs mean what
they mean everywhere. A commit that is in the cache is used without a request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dehaze.errors import ModelError
from dehaze.weights import trust
from dehaze.weights.checkpoint import sha256_of
from dehaze.weights.manifest import ModelEntry

SCHEME = "hf://"
Progress = Callable[[float, float | None], object]
"""Called while bytes arrive: how many have, and how many there are (None if unknown)."""

MAX_BYTES = 1 << 30
"""A checkpoint of ours is some megabytes; a file larger than this is not one and is not downloaded."""

_log = logging.getLogger(__name__)
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(
    rf"hf://(?P<repository>{_NAME}/{_NAME})/(?P<file>[^@\\]+)(?:@(?P<revision>[\w.][\w./-]*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Address:
    """One file on the Hub.

    Attributes:
        repository: `owner/name`.
        file: Path inside the repository.
        revision: Commit, branch or tag.
    """

    repository: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}/{self.file}@{self.revision}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit, which can never mean another file."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class Fetched:
    """A file of the Hub that is in the cache.

    Attributes:
        path: Where.
        commit: The commit it belongs to.
        sha256: Of the file as it is there.
    """

    path: Path
    commit: str
    sha256: str


def parse(text: str) -> Address:
    """Read `hf://owner/repo/file.safetensors@revision`; without a revision it is `main`.

    Raises:
        ModelError: Not of that form, or not a `.safetensors` file.
    """
    match = _ADDRESS.fullmatch(text)
    parts = f"{match['file']}/{match['revision'] or 'main'}".split("/") if match else [""]
    if not match or any(part in ("", ".", "..") for part in parts):
        raise ModelError(
            f"'{text}' is not an address on the Hub", "write it as hf://owner/repo/file.safetensors@revision"
        )
    if not match["file"].endswith(".safetensors"):
        raise ModelError(
            f"{text} is not a .safetensors file, and no other kind is opened since it could run code",
            "name a .safetensors file written by 'dehaze train' or 'dehaze distill'",
        )
    return Address(match["repository"], match["file"], match["revision"] or "main")


def address_of(entry: ModelEntry) -> Address:
    """Address of a manifest entry that lives on the Hub."""
    return Address(entry.repository, entry.file, entry.revision)


def cached(address: Address) -> Path | None:
    """Path of a file in the cache, as far as is known without asking the Hub; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.repository, address.file, revision=address.revision)
    return Path(found) if isinstance(found, str) else None


def fetch_entry(entry: ModelEntry, *, progress: Progress | None = None, force: bool = False) -> Fetched:
    """Return a manifest entry's file, downloaded if it is not in the cache, with the checksum it must have.

    Args:
        entry: An entry whose source is `hub`.
        progress: See `Progress`.
        force: Download even what is in the cache.

    Raises:
        ModelError: Not to be had, or not the file that the manifest describes.
    """
    address = address_of(entry)
    was_cached = not force and cached(address) is not None
    fetched = fetch(address, progress=progress, force=force)
    if fetched.sha256 == entry.sha256:
        return fetched
    if was_cached:
        raise damaged(entry.name, fetched.path)
    _discard(fetched.path)
    raise ModelError(
        f"{address} has sha256 {fetched.sha256} instead of {entry.sha256}, so it was thrown away",
        "somebody between you and the Hub changed it: check HF_ENDPOINT and your proxy, then try again",
    )


def fetch_foreign(
    address: Address, *, progress: Progress | None = None, force: bool = False, accept: bool = False
) -> Fetched:
    """Return a file that is in no manifest; its checksum is recorded on first use and must not change after.

    Args:
        address: Where it is.
        progress: See `Progress`.
        force: Download even what is in the cache.
        accept: Take the file as it is now, and record that.

    Raises:
        ModelError: Not to be had, or not what it was on first use.
    """
    record = None if accept else trust.known(str(address))
    fetched = fetch(address, record=record, progress=progress, force=force)
    now = trust.Record(str(address), fetched.sha256, fetched.path.stat().st_size, fetched.commit)
    if accept:
        trust.replace(now)
        return fetched
    record = trust.remember(now)
    if record.sha256 != fetched.sha256:
        raise (
            damaged(str(address), fetched.path)
            if record.commit == fetched.commit
            else trust.changed(record, fetched.sha256)
        )
    return fetched


def damaged(name: str, path: Path) -> ModelError:
    """Build the error for a file in the cache that is no longer what was downloaded."""
    return ModelError(
        f"the copy of {name} in the cache is damaged: {path}",
        f"download it again with: dehaze models pull --force {name}",
    )


def fetch(
    address: Address,
    *,
    record: trust.Record | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Fetched:
    """Return a file as the Hub or the cache has it, checked against nothing but what the Hub promised.

    Args:
        address: Where it is.
        record: What it was on first use; a file that the Hub says is another one is refused unfetched.
        progress: See `Progress`.
        force: Download even what is in the cache.

    Raises:
        ModelError: Not to be had.
    """
    found = cached(address)
    if found is None or force or not address.pinned:
        found = _download(address, found, record=record, progress=progress, force=force)
    return Fetched(found, _commit_of(found, address), sha256_of(found))


def _download(
    address: Address,
    found: Path | None,
    *,
    record: trust.Record | None,
    progress: Progress | None,
    force: bool,
) -> Path:
    from huggingface_hub import hf_hub_download

    from dehaze.weights.hub_errors import CLIENT_ERRORS, explain, is_unreachable

    try:
        promised = _promise(address, record)
        if found and force:
            _discard(found)
        path = Path(
            hf_hub_download(
                address.repository, address.file, revision=address.revision, tqdm_class=_bar(progress)
            )
        )
    except CLIENT_ERRORS as error:
        if found and not force and is_unreachable(error):
            _log.info("the Hub cannot be reached; using the copy of %s in the cache", address)
            return found
        raise explain(error, address) from error
    if (force or path != found) and _SHA256.fullmatch(promised) and sha256_of(path) != promised:
        _discard(path)
        raise ModelError(
            f"{address} arrived damaged (not the bytes that the Hub promised), so it was thrown away",
            "try again; if it stays so, check HF_ENDPOINT and your proxy",
        )
    return path


def _promise(address: Address, record: trust.Record | None) -> str:
    """Ask the Hub what it would send, and return its entity tag: for large files the sha256.

    The download would ask too, but retries for half a minute before it gives up.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(address.repository, address.file, revision=address.revision)
    found = get_hf_file_metadata(url)
    if not found.etag or not found.commit_hash:
        raise ModelError(f"{url} is not answered by a Hugging Face Hub", "check HF_ENDPOINT and your proxy")
    if record and _SHA256.fullmatch(found.etag) and found.etag != record.sha256:
        raise trust.changed(record, found.etag)
    if (found.size or 0) > MAX_BYTES:
        raise ModelError(
            f"{address} has {found.size} bytes, far more than any dehaze checkpoint",
            "name a .safetensors file written by 'dehaze train' or 'dehaze distill'",
        )
    return found.etag


def _commit_of(path: Path, address: Address) -> str:
    if address.pinned:
        return address.revision
    folder = path.parents[address.file.count("/")]
    return folder.name


def _discard(path: Path) -> None:
    """Take a file out of the cache: the entry for its commit, and the bytes that it links to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _bar(progress: Progress | None) -> type[Any]:
    """Make the progress-bar class that the client wants of a function that only counts bytes."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if progress:
                progress(self.n, self.total)

    return Bar


def pinned(address: Address, fetched: Fetched) -> Address:
    """The same file by its commit, for good."""
    return replace(address, revision=fetched.commit)
