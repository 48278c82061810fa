"""A run in two processes: interrupted, killed, resumed, and from the command line under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lessons import go_on
from safetensors.torch import load_file
from together import together

from dehaze.errors import TrainingError
from dehaze.models import TeacherConfig, build
from dehaze.training.distributed import Distributed
from dehaze.training.state import load_state
from dehaze.weights.checkpoint import Header, load_checkpoint, save_checkpoint


def same_tensors(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, [said["result"] for said in together("runs", folder)]


def test_interrupted_and_resumed_equals_uninterrupted(runs: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, lesson = runs
    for said in lesson:
        assert said["whole"] == ["finished", 6]
        assert said["ended"] == ["interrupted", 2]
        assert said["resumed"]
        assert said["rest"] == ["finished", 6]
    for name in ("last.safetensors", "last.extras.safetensors", "state.safetensors"):
        assert same_tensors(folder / "whole" / name, folder / "parts" / name), name
    moved = load_file(folder / "whole" / "state.safetensors")
    assert not torch.equal(moved["random.0"], moved["random.1"])


def test_a_nan_in_one_process_stops_all_at_the_same_step(
    runs: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, (first, second) = runs
    assert first["poisoned"].startswith("the gradient is nan at step 3;")  # averaged with the other's
    assert second["poisoned"].startswith("the loss is nan at step 3;")
    assert load_state(folder / "poisoned" / "state.safetensors").progress.step == 2


def test_a_killed_run_leaves_a_state_that_is_finished_later(tmp_path: Path) -> None:
    lost, survivor = together("die", tmp_path)
    assert lost is None
    assert survivor["error"] == "TrainingError"
    assert "another one was lost" in survivor["message"]
    assert len(survivor["message"]) < 200
    for said in together("go_on", tmp_path):
        assert said["result"] == {"at": 2, "step": 6}
    with pytest.raises(TrainingError, match="processes: 2 -> 1"):
        go_on(Distributed(torch.device("cpu")), tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Clear pictures and depth, a teacher and a recipe, all tiny."""
    draw = np.random.default_rng(0)
    for folder in ("clear", "depth"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        picture = cv2.resize(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
        ramp = np.linspace(20, 255, 48, dtype=np.uint8)[::-1, None].repeat(64, 1)
        cv2.imwrite(str(tmp_path / "clear" / f"{i}.png"), picture)
        cv2.imwrite(str(tmp_path / "depth" / f"{i}.png"), ramp)
    config = TeacherConfig(d=6, s=3, m=1)
    header = Header(name="teacher", architecture="teacher", config=vars(config))
    save_checkpoint(tmp_path / "teacher.safetensors", build("teacher", config).state_dict(), header)
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nvalidate_every = 100\nworking_size = 32\n'
        'task = "distill"\n[model]\nwidth = 8\ninner_blocks = 1\nreduction = 4\n'
        "[[stages]]\nsizes = [[24, 32]]\nbatch = 4\nsteps = 5\n"
    )
    return tmp_path


def test_torchrun_distills_from_the_command_line(data: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "-m", "dehaze", "distill", "--json", "--device", "cpu"]
    command += ["--clear", str(data / "clear"), "--depth", str(data / "depth")]
    command += ["--recipe", str(data / "tiny.toml"), "--teacher", str(data / "teacher.safetensors")]
    command += ["-o", str(data / "run")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["reason"] for e in events if e["event"] == "done"] == ["finished"]
    assert events[-1]["step"] == 5
    model, header = load_checkpoint(data / "run" / "best.safetensors")
    assert header.recipe["distillation"]["weight"] == 0.25
    assert model(torch.rand(1, 3, 24, 32)).shape == (1, 3, 24, 32)
