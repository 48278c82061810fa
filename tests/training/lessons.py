"""What test_distributed.py runs in several processes: `python lessons.py NAME FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dehaze.errors import DehazeError, TrainingError, UsageError
from dehaze.models import StudentConfig, TeacherConfig, build
from dehaze.training.distributed import Distributed, join
from dehaze.training.loop import RunOptions, Trainer
from dehaze.training.recipe import Optimiser, Recipe, Stage
from dehaze.training.tasks import DehazeTask, DistillTask, SuperResolutionTask, Task
from dehaze.weights.checkpoint import Header

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


def meet(process: Distributed, folder: Path) -> Any:
    """What test_distributed.py looks at."""
    return {"talk": talk(process), "teacher": learn_every_task(process, folder)}


def learn_every_task(process: Distributed, folder: Path) -> Any:
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


def talk(process: Distributed) -> Any:
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
        "gather": process.gather({"rank": process.rank}),
    }


class Noise:
    """Batches that only the generator decides, but for one that is poisoned."""

    identity: ClassVar[dict[str, str | int]] = {"kind": "noise"}

    def __init__(self, poisoned: int = 0) -> None:
        self.poisoned, self.drawn = poisoned, 0

    def __len__(self) -> int:
        return 100

    def batch(self, count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
        clear = torch.rand(count, 3, *size, generator=generator)
        self.drawn += 1
        if self.drawn == self.poisoned:
            clear[0, 0, 0, 0] = torch.nan
        return {"hazy": clear * 0.6 + 0.4, "clear": clear}


class Interrupter:
    """A reporter that has its process interrupted, or killed, after a step."""

    def __init__(self, at: int = 0, *, kill: bool = False) -> None:
        self.at, self.kill = at, kill

    def step(self, figures: dict[str, float]) -> None:
        if figures["step"] == self.at:
            if self.kill:
                os._exit(9)
            signal.raise_signal(signal.SIGINT)

    def validation(self, figures: dict[str, float], best: bool) -> None:
        pass

    def samples(self, step: int, rows: dict[str, Tensor]) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass


RUN_STEPS = 6


def make_trainer(process: Distributed, folder: Path, reporter: Interrupter, rank_of_reporter: int) -> Trainer:
    """Distillation with projections on noise: two sizes, a moving average, a save after every step."""
    recipe = Recipe(
        name="tiny",
        task="distill",
        architecture="student",
        model={"width": 8, "inner_blocks": 1, "reduction": 4},
        validate_every=2,
        stages=(
            Stage(sizes=((16, 20), (20, 16)), batch=4, steps=3),
            Stage(sizes=((24, 24),), batch=2, steps=3),
        ),
        optimiser=Optimiser(warmup=2),
    )
    torch.manual_seed(recipe.seed + process.rank)  # the main process's weights must win
    teacher = build("teacher", TeacherConfig(d=6, s=3, m=1))
    torch.manual_seed(100)
    task = DistillTask(build("student", recipe.model), teacher, projections=True)

    def judge(model: nn.Module, header: Header, *, limit: int | None = None) -> dict[str, float]:
        assert process.is_main
        return {"psnr": -float(sum(p.detach().square().sum() for p in model.parameters()))}

    return Trainer(
        recipe,
        task,
        Noise(),
        judge,
        RunOptions(folder, save_minutes=0, log_every=1),
        process,
        reporter if process.rank == rank_of_reporter else None,
    )


def poison(process: Distributed, folder: Path) -> str:
    """The second process alone meets a NaN, in its third batch; what each says."""
    trainer = make_trainer(process, folder / "poisoned", Interrupter(), 0)
    trainer.source = Noise(poisoned=3 if process.rank == 1 else 0)
    try:
        trainer.run()
    except TrainingError as error:
        return error.message
    return "went on"


def runs(process: Distributed, folder: Path) -> Any:
    """An uninterrupted run; one that a signal ends after two steps and that then goes on; a NaN."""
    whole = make_trainer(process, folder / "whole", Interrupter(), 0).run()
    ended = make_trainer(process, folder / "parts", Interrupter(2), 0).run()
    trainer = make_trainer(process, folder / "parts", Interrupter(), 0)
    resumed = trainer.resume()
    rest = trainer.run()
    return {
        "whole": [whole.reason, whole.progress.step],
        "ended": [ended.reason, ended.progress.step],
        "resumed": resumed,
        "rest": [rest.reason, rest.progress.step],
        "poisoned": poison(process, folder),
    }


def die(process: Distributed, folder: Path) -> Any:
    """The main process is killed after three steps."""
    make_trainer(process, folder / "killed", Interrupter(3, kill=True), 0).run()


def go_on(process: Distributed, folder: Path) -> Any:
    """What `die` left is finished."""
    trainer = make_trainer(process, folder / "killed", Interrupter(), 0)
    trainer.resume()
    at = trainer.progress.step
    return {"at": at, "step": trainer.run().progress.step}


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
