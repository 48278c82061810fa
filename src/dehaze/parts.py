"""Files that appear whole or not at all, and what processes that died have left of them."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dehaze.errors import UsageError

_PART = re.compile(r"\.([0-9a-f]{8})\.([0-9]+)\.[0-9a-f]{8}\.part(\.[^.]+)?")


def there(path: Path) -> bool:
    """Whether there is such a file or folder; of a name that none can have, there is not."""
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises where a name is too long)


def check_folder(output: Path) -> None:
    """Refuse a folder to be written to whose name is a file's.

    Raises:
        UsageError: It is.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"the output {output} is a file, expected a directory")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file through a temporary one beside it; on failure nothing is left and the old file stays.

    A link is followed, an old file's permissions are kept, a new one gets those the umask allows. Devices and
    pipes are written to directly.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    target = real_target(path)
    temporary = part_path(target)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        put_in_place(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def real_target(path: Path) -> Path:
    """The file that a new one is to replace: links followed, and known to be one that may be replaced.

    Raises:
        OSError: It is a directory or write-protected, or there is no directory to put it in.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    return target


def put_in_place(part: Path, target: Path) -> None:
    """Rename a finished file to its target once it is on the disk, with the permissions of the old file.

    Args:
        part: From `part_path`.
        target: From `real_target`.

    Raises:
        OSError: It cannot be done; the part stays.
    """
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    if target.exists():
        shutil.copymode(target, part)
    part.replace(target)


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
