from __future__ import annotations

from pathlib import Path

import pytest

from dehaze import machine


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty control group, on a machine with 8 CPUs and 4 GB available."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "expected"), [("3", 3), ("2,1", 2), ("", 8), ("0", 8), ("many", 8), ("12", 12)]
)
def test_omp_num_threads_decides(
    group: Path, monkeypatch: pytest.MonkeyPatch, asked: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert machine.available_cpus() == expected


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", 8),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_quota_of_a_version_2_group_counts(group: Path, cpu_max: str, expected: int) -> None:
    (group / "cpu.max").write_text(cpu_max + "\n")
    assert machine.available_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8)])
def test_quota_of_a_version_1_group_counts(group: Path, quota: str, expected: int) -> None:
    (group / "cpu").mkdir()
    (group / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (group / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert machine.available_cpus() == expected


def test_memory_is_what_the_system_calls_available(group: Path) -> None:
    assert machine.available_memory() == 4_000_000 * 1024


@pytest.mark.parametrize(("most", "expected"), [("3000000", 2_000_000), ("max", 4_000_000 * 1024), ("10", 0)])
def test_memory_of_a_group_is_bounded_by_its_limit(group: Path, most: str, expected: int) -> None:
    (group / "memory.max").write_text(most)
    (group / "memory.current").write_text("1000000")
    assert machine.available_memory() == expected


@pytest.mark.parametrize(
    ("directory", "limit", "usage", "cached"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_a_group_has_read_take_no_memory_from_it(
    group: Path, directory: str, limit: str, usage: str, cached: str
) -> None:
    (group / directory).mkdir(exist_ok=True)
    (group / directory / limit).write_text("3000000")
    (group / directory / usage).write_text("2900000")
    (group / directory / "memory.stat").write_text(f"{cached}_not 5\nanon 700000\n{cached} 2200000\nx 1\n")
    assert machine.available_memory() == 2_300_000


def test_memory_is_modest_where_the_system_does_not_say(group: Path) -> None:
    (group / "meminfo").unlink()
    assert machine.available_memory() == 2 * 1024**3
