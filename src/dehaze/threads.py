"""How many threads to compute with."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


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


def _quota(root: Path) -> int | None:
    """CPUs that a control group's quota amounts to, rounded up; None without a quota."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdecimal() and period.isdecimal() and int(period) > 0):
        return None
    return -(-int(quota) // int(period))
