"""Names of files that are being written, and what processes that died have left of them."""

from __future__ import annotations

import os
import re
import secrets
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PART = re.compile(r"\.([0-9a-f]{8})\.([0-9]+)\.[0-9a-f]{8}\.part(\.[^.]+)?")


def part_path(target: Path, *, keep_suffix: bool = False) -> Path:
    """Where a file is written until it is whole: a new hidden name beside it, short whatever its own.

    The name says which target it is for and which process writes it.

    Args:
        target: The file to be.
        keep_suffix: End in the target's suffix, for writers that tell the format by it.
    """
    suffix = target.suffix if keep_suffix else ""
    return target.with_name(f".{_key(target.name)}.{os.getpid()}.{secrets.token_hex(4)}.part{suffix}")


def sweep(targets: Iterable[Path]) -> int:
    """Remove what processes of this machine that no longer run have left of these files.

    Returns:
        How many files were removed.
    """
    keys: dict[Path, set[str]] = {}
    for target in targets:
        keys.setdefault(target.parent, set()).add(_key(target.name))
    count = 0
    for directory, wanted in keys.items():
        with suppress(OSError):
            for path in directory.iterdir():
                match = _PART.fullmatch(path.name)
                if match and match[1] in wanted and not _runs(int(match[2])):
                    path.unlink()
                    count += 1
    return count


def _key(name: str) -> str:
    return f"{zlib.crc32(os.fsencode(name)):08x}"


def _runs(process: int) -> bool:
    """Whether a process runs; where one cannot ask, files that are in use cannot be removed anyway."""
    if os.name != "posix" or process == 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
