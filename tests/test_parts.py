"""Files being written: never in each other's way, and swept up after processes that died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dehaze.parts import part_path, sweep

pytestmark = pytest.mark.skipif(os.name != "posix", reason="asks POSIX which processes run")


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_over(target: Path, process: int, **settings: bool) -> Path:
    mine = part_path(target, **settings)
    path = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{process}."))
    path.write_bytes(b"half")
    return path


def test_a_part_is_hidden_beside_its_target_and_never_the_same_twice(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250 + ".mp4")
    parts = {part_path(target, keep_suffix=True) for _ in range(20)}
    assert len(parts) == 20
    for part in parts:
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.suffix == ".mp4"
        assert len(part.name) < 60
    assert part_path(target).suffix == ".part"


@pytest.mark.parametrize("keep_suffix", [False, True])
def test_only_parts_of_these_targets_and_of_dead_processes_go(tmp_path: Path, keep_suffix: bool) -> None:
    target, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    stale = left_over(target, dead_process(), keep_suffix=keep_suffix)
    kept = [
        left_over(target, os.getpid(), keep_suffix=keep_suffix),
        left_over(target, os.getppid(), keep_suffix=keep_suffix),
        left_over(other, dead_process(), keep_suffix=keep_suffix),
    ]
    target.write_bytes(b"whole")
    assert sweep([target]) == 1
    assert not stale.exists()
    assert all(path.exists() for path in [*kept, target])


def test_directories_that_are_not_there_are_no_trouble(tmp_path: Path) -> None:
    assert sweep([tmp_path / "none" / "a.jpg"]) == 0
