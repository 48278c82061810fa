"""The machine: its processor, and what this process may use of it, container limits included."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
_GROUP_MEMORY = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, usage, and where the cache of files is that the usage includes: version 2, version 1."""

_MODEST = 2 * 1024**3
"""Assumed to be free where the system does not say."""


def available_cpus() -> int:
    """CPUs this process may use, at least 1.

    ``OMP_NUM_THREADS`` decides where it is set; else the process's CPU affinity and the quota of its Linux
    control group (version 2 or 1), which is how containers are limited.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, _quota(_CGROUP) or affinity))


def cpu_name() -> str:
    """The processor's model, as the system names it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def available_memory() -> int:
    """Bytes of main memory this process may still take: what the system calls available, within its group."""
    return int(min(_free_in_system(_MEMINFO), _free_in_group(_CGROUP)))


def _quota(group: Path) -> int | None:
    """CPUs that a control group's quota amounts to, rounded up; None without a quota."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota = str(_number(group / "cpu" / "cpu.cfs_quota_us"))
        period = str(_number(group / "cpu" / "cpu.cfs_period_us"))
    if not (quota.isdecimal() and period.isdecimal() and int(period) > 0):
        return None
    return -(-int(quota) // int(period))


def _free_in_group(group: Path) -> float:
    """What a control group's limit leaves; files in its cache give way, so they count as free."""
    for limit, used, stat, cache in _GROUP_MEMORY:
        most, now = _number(group / limit), _number(group / used)
        if most is not None and now is not None:
            taken = now - (_entry(group / stat, cache) or 0)
            return max(most - max(taken, 0), 0)
    return float("inf")


def _free_in_system(meminfo: Path) -> int:
    free = _entry(meminfo, "MemAvailable:")
    return _MODEST if free is None else free * 1024


def _entry(path: Path, key: str) -> int | None:
    """The number after a key, in a file of one key a line; None if it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key} ")), None)


def _number(path: Path) -> int | None:
    """The number a one-line file holds; None if it is not there or holds a word (``max``)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
