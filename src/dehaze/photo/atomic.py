"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from dehaze.parts import part_path


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
    target = path.resolve() if path.is_symlink() else path
    _check_writable(target)
    temporary = part_path(target)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check_writable(target: Path) -> None:
    """Refuse what replacing a file would silently allow, or name badly."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
