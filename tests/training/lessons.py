"""What test_distributed.py runs in several processes: `python lessons.py NAME FOLDER`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dehaze.errors import DehazeError, UsageError
from dehaze.models import StudentConfig, TeacherConfig, build
from dehaze.training.distributed import Distributed, join
from dehaze.training.tasks import DehazeTask, DistillTask, SuperResolutionTask, Task

STEPS = 3


def make_task(name: str, seed: int = 0) -> Task:
    torch.manual_seed(seed)
    student = build("student", StudentConfig(width=8, inner_blocks=1, reduction=4))
    nn.init.normal_(student.tail.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    torch.manual_seed(100)
    teacher = build("teacher", TeacherConfig(d=6, s=3, m=1))
    if name == "dehaze":
        return DehazeTask(student).double()
    if name == "super-resolution":
        return SuperResolutionTask(teacher).double()
    torch.manual_seed(seed)
    return DistillTask(
        student, teacher, measure="l1" if name == "distill-l1" else "l2", projections=True
    ).double()


def make_batch(step: int) -> dict[str, Tensor]:
    """Four pictures, the same in every process."""
    generator = torch.Generator().manual_seed(step)
    clear = torch.rand(4, 3, 20, 24, generator=generator, dtype=torch.float64)
    return {"clear": clear, "hazy": clear * 0.6 + 0.4}


def learn(task: Task, process: Distributed) -> dict[str, Tensor]:
    """Take a few steps; the first gradient and the last weights come back."""
    step_of = process.wrap(task)
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-3)
    kept: dict[str, Tensor] = {}
    for step in range(STEPS):
        count = process.share(4)
        own = slice(process.rank * count, (process.rank + 1) * count)
        losses = step_of({name: pictures[own] for name, pictures in make_batch(step).items()})
        optimiser.zero_grad()
        losses["total"].backward()
        if step == 0:
            kept = {f"gradient.{n}": p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}
            mean = process.mean({k: float(v.detach()) for k, v in losses.items()})
            kept |= {f"loss.{name}": torch.tensor(value, dtype=torch.float64) for name, value in mean.items()}
        optimiser.step()
    return kept | {f"weight.{name}": p.detach().clone() for name, p in task.named_parameters()}


def gradients(process: Distributed, folder: Path) -> Any:
    """Every task; each process starts from other weights, so that the main process's must be handed out."""
    for name in ("dehaze", "distill", "distill-l1", "super-resolution"):
        save_file(
            learn(make_task(name, seed=process.rank), process), folder / f"{name}.{process.rank}.safetensors"
        )
    task = make_task("distill")
    assert isinstance(task, DistillTask)
    wrapped = process.wrap(task)
    shared = {id(p) for p in wrapped.parameters()}
    return {
        "teacher_shared": any(id(p) in shared for p in task.teacher.parameters()),
        "extras_shared": all(id(p) in shared for p in task.extras.parameters()),  # type: ignore[union-attr]
        "saved": sorted({name.split(".")[0] for name in task.state_dict()}),
    }


def talk(process: Distributed, folder: Path) -> Any:
    """Every way of talking."""
    try:
        process.share(5)
    except UsageError as error:
        refused = error.message
    rank = float(process.rank)
    return {
        "main": process.is_main,
        "device": str(process.device),
        "share": process.share(6),
        "refused": refused,
        "seed": process.seed(7),
        "total": process.total({"a": rank + 1, "b": 10 * rank}),
        "mean": process.mean({"a": rank + 1}),
        "any": [process.any(False), process.any(process.rank == 1), process.any(True)],
        "from_main": process.from_main({"rank": process.rank}),
        "gather": process.gather({"rank": process.rank}),
    }


def lose(process: Distributed, folder: Path) -> Any:
    """The second process is gone before the second step."""
    task = make_task("dehaze")
    wrapped = process.wrap(task)
    for step in range(2):
        if step and process.rank == 1:
            os._exit(9)
        wrapped(make_batch(step))["total"].backward()
    return "went on"


def fail(process: Distributed, folder: Path) -> Any:
    """A mistake of the program's own in one process must not be taken for a lost worker."""
    raise RuntimeError("shapes do not match")


def main(name: str, folder: Path) -> int:
    started = time.monotonic()
    result: Any
    try:
        with join("cpu") as process:
            result = {"result": globals()[name](process, folder)}
    except DehazeError as error:
        result = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except RuntimeError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    result["group_left"] = not torch.distributed.is_initialized()
    result["seconds"] = time.monotonic() - started
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(result))
    return 0 if "result" in result else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
