"""Remember what a file on the Hub was when first used, and refuse it when it has become another.

Files in the manifest have their checksum there; for any other file the first use is all we can go by. Each
record is one small JSON file in the assets folder of the client's cache: `HF_HOME/assets/dehaze/known-files`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dehaze.errors import ModelError
from dehaze.parts import part_path
from dehaze.weights.checkpoint import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What an address led to when it was first used.

    Attributes:
        address: The `hf://` address as the user gave it.
        sha256: Of the file.
        bytes: Size of the file.
        commit: The commit the address meant then.
    """

    address: str
    sha256: str
    bytes: int
    commit: str


def known(address: str) -> Record | None:
    """Return the record of an address; None if it was never used.

    Raises:
        ModelError: The record is damaged or cannot be read.
    """
    path = _path(address)
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(
            f"the record of {address} in {path} cannot be read: {error.strerror or error}",
            "ask its owner for leave to read it, or set HF_HOME to a folder of your own",
        ) from error
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"the record of {address} in {path} is damaged",
            f"if you trust the file as it is now: dehaze models pull --accept {address}",
        ) from error


def remember(record: Record) -> Record:
    """Record a first use unless there is a record already; return the one that counts.

    Of several processes that come here at once one wins, and all return its record.
    """
    path = _path(record.address)
    try:
        created = _create(path, _encoded(record))
    except OSError as error:
        _log.warning("cannot record the checksum of %s: %s", record.address, error.strerror or error)
        return record
    if created:
        _log.warning("first use of %s: recorded its sha256 %s", record.address, record.sha256)
        return record
    return known(record.address) or record


def replace(record: Record) -> None:
    """Record what an address leads to now, whatever was recorded before."""
    write_atomically(_path(record.address), _encoded(record))


def changed(record: Record, sha256: str) -> ModelError:
    """Build the refusal of a file that is not what its record says."""
    repository = record.address.rpartition("@")[0]
    return ModelError(
        f"{record.address} has changed since its first use: its sha256 was {record.sha256} and is {sha256}",
        f"keep the old file with -m {repository}@{record.commit}, "
        f"or accept the new one with: dehaze models pull --accept {record.address}",
    )


def records() -> Iterator[Record]:
    """Every readable record, ordered by address."""
    found = []
    for path in _folder().glob("*.json"):
        try:
            found.append(_read(path))
        except (OSError, ValueError, TypeError):
            _log.warning("ignored a damaged record: %s", path)
    return iter(sorted(found, key=lambda record: record.address))


def _read(path: Path) -> Record:
    return Record(**json.loads(path.read_text(encoding="utf-8")))


def _encoded(record: Record) -> bytes:
    return json.dumps(asdict(record), indent=2).encode()


def _create(path: Path, data: bytes) -> bool:
    """Write a file that must not exist yet, so that nobody ever sees half of it; False if it does exist."""
    if path.exists():
        return False
    temporary = part_path(path)
    write_atomically(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links (FAT): the last of several first users wins.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _path(address: str) -> Path:
    return _folder() / f"{hashlib.sha256(address.encode()).hexdigest()[:40]}.json"


def _folder() -> Path:
    from huggingface_hub.constants import HF_ASSETS_CACHE

    return Path(HF_ASSETS_CACHE) / "dehaze" / "known-files"
