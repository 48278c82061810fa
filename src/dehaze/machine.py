"""The machine: its processor, and what this process may use of it, container limits included."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
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
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _number(group / limit), _number(group / used)
        if most is not None and now is not None:
            return max(most - now, 0)
    return float("inf")


def _free_in_system(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return _MODEST
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), _MODEST)


def _number(path: Path) -> int | None:
    """The number a one-line file holds; None if it is not there or holds a word (``max``)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
