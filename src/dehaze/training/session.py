"""A whole run from what a user names: data folders, a recipe, a place to write.

The command line's one door to training.
"""

from __future__ import annotations

import hashlib
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from dehaze.device import settle
from dehaze.errors import UsageError
from dehaze.models import architecture_of, build, config_dict, count_parameters
from dehaze.models.teacher import Teacher
from dehaze.parts import check_folder
from dehaze.training.distributed import Distributed, join
from dehaze.training.loop import STATE, Outcome, RunOptions, Trainer
from dehaze.training.recipe import Recipe
from dehaze.training.report import RunReporter
from dehaze.training.sources import DataSpec, Judge, build_data
from dehaze.training.tasks import DehazeTask, DistillTask, SuperResolutionTask, Task
from dehaze.weights import load

LOCK = ".lock"
"""File in a run's folder that the process training there holds; the system lets go of it when that ends."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        recipe: The resolved recipe.
        data: Identity of the training data.
        parameters: Learned values of the network that is trained.
        steps: Steps in all.
        seconds_per_step: Time of a step at each stage, timed on this machine.
        seconds: Estimate of the time that is left to do, validation included.
        validation_seconds: Estimate of one validation, of which there is one every `validate_every` steps.
        resumes_at: Step to go on from; 0 for a fresh run.
    """

    recipe: Recipe
    data: dict[str, Any]
    parameters: int
    steps: int
    seconds_per_step: list[float]
    seconds: float
    validation_seconds: float
    resumes_at: int


@dataclass(frozen=True)
class Request:
    """One run: how to train, on what, and where to write.

    Attributes:
        recipe: How to train.
        data: On what.
        folder: Where checkpoints, logs and state go.
        device: As for `dehaze.device.resolve_device`.
        max_minutes: Time budget of this sitting.
        resume: Go on from the folder's state if there is one.
        compile: Compile the step.
        initial: Checkpoint (name or path) to start from instead of random weights.
        licence: Terms of the weights.
    """

    recipe: Recipe
    data: DataSpec
    folder: Path
    device: str = "auto"
    max_minutes: float | None = None
    resume: bool = True
    compile: bool = False
    initial: str = ""
    licence: str = ""


Listener = Callable[[str, dict[str, Any]], None]


def train(request: Request, listener: Listener = lambda event, figures: None) -> Outcome:
    """Carry out a run, resuming it if its folder holds a state.

    Args:
        request: What to do.
        listener: Told ``("data" | "resume" | "step" | "validation", figures)``; main process only.

    Raises:
        DataError: Data is missing, incomplete or unreadable.
        UsageError: The request contradicts itself, or its folder holds a run that is not to be resumed or
            that another process carries out.
        TrainingError: The folder's run was started differently, or a loss became NaN or infinite.
        ModelError: The teacher or the initial weights cannot be loaded.
    """
    with join(request.device) as process:
        hear = listener if process.is_main else _silence
        if (request.folder / LOCK).exists():
            with _claimed(request.folder, process):
                pass  # one in use is refused now, not after the data are loaded
        trainer, reporter = _assemble(request, process, hear)
        try:
            with _claimed(request.folder, process), _fast_kernels(process.device):
                if request.resume and trainer.resume():
                    hear("resume", {"step": trainer.progress.step, "steps": trainer.steps})
                return trainer.run()
        finally:
            if reporter is not None:
                reporter.close()


def plan(request: Request) -> Plan:
    """Look at recipe and data, and time a few steps at every stage; writes nothing.

    Raises:
        DataError, UsageError, TrainingError, ModelError: As `train` would.
    """
    with join(request.device) as process:
        trainer, _ = _assemble(request, process, _silence, log=False)
        at = trainer.progress.step if request.resume and trainer.resume() else 0
        recipe = request.recipe
        ends = recipe.stage_ends(len(trainer.source))
        starts = [0, *ends[:-1]]
        judging = _time_validation(trainer) if process.is_main else 0.0
        with _fast_kernels(process.device):
            timed = trainer.rehearse()
        left = [max(0, end - max(start, at)) for start, end in zip(starts, ends, strict=True)]
        validations = math.ceil(ends[-1] / recipe.validate_every) - at // recipe.validate_every
        validations = validations if at < ends[-1] else 0  # the end is validated wherever it lies
        return Plan(
            recipe=recipe,
            data=dict(trainer.source.identity),
            parameters=count_parameters(trainer.task.model),
            steps=ends[-1],
            seconds_per_step=timed,
            seconds=sum(t * n for t, n in zip(timed, left, strict=True)) + judging * validations,
            validation_seconds=judging,
            resumes_at=at,
        )


def _time_validation(trainer: Trainer) -> float:
    """Seconds of a whole validation, from one of a few pictures."""
    validator = trainer.validator
    assert isinstance(validator, Judge)
    trainer.judge(1)  # warms up
    began = time.perf_counter()
    trainer.judge(2)
    return (time.perf_counter() - began) * validator.pictures() / validator.pictures(2)


@contextmanager
def _claimed(folder: Path, process: Distributed) -> Iterator[None]:
    """Keep a folder to one run at a time: two would write over each other's state."""
    if not process.is_main:
        yield
        return
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"another process trains in {folder}",
            "wait for it or stop it with Ctrl-C; or choose another folder with -o",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _fast_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA: try out convolutions for each shape, of which there are few, and multiply float32 as TF32."""
    if device.type != "cuda":
        yield
        return
    kept = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = kept[0]
        torch.set_float32_matmul_precision(kept[1])


def _assemble(
    request: Request, process: Distributed, hear: Listener, *, log: bool = True
) -> tuple[Trainer, RunReporter | None]:
    check_folder(request.folder)
    if not request.resume and (request.folder / STATE).exists():
        raise UsageError(
            f"{request.folder} already holds a run",
            "choose another folder with -o, or leave out --no-resume to go on",
        )
    recipe, device = request.recipe, process.device
    settle(device)  # validation does; a resumed run must compute like one that began with a validation
    torch.manual_seed(recipe.seed)
    task = build_task(recipe, device)
    source, validator = build_data(request.data, recipe, device)
    context: dict[str, Any] = {"validation": validator.identity}
    if isinstance(task, DistillTask):
        context["teacher"] = _fingerprint(task.teacher.state_dict())
    initial = _initial_weights(request.initial, task.model)
    if initial is not None:
        context["initial"] = _fingerprint(initial)
    if request.data.shares:
        context["shares"] = list(request.data.shares)
    hear("data", dict(source.identity))
    options = RunOptions(
        folder=request.folder,
        max_minutes=request.max_minutes,
        compile=request.compile,
        source_commit=_source_commit(),
        data={"names": list(request.data.names)} if request.data.names else {},
        licence=request.licence,
        initial=initial,
    )
    reporter = RunReporter(request.folder, hear) if log and process.is_main else None
    trainer = Trainer(recipe, task, source, validator, options, process, reporter, context)
    return trainer, reporter


def build_task(recipe: Recipe, device: torch.device) -> Task:
    """Build the network and what it is to learn, on the device, channels last.

    Raises:
        UsageError: The network cannot be built or cannot do the task, or the teacher is none.
        ModelError: The teacher cannot be loaded.
        TrainingError: Student and teacher do not pair.
    """
    try:
        model = build(recipe.architecture, recipe.model)
    except ValueError as error:
        raise UsageError(f"the recipe's network cannot be built: {error}") from error
    enlarges = isinstance(model, Teacher)
    if enlarges != (recipe.task == "super-resolution"):
        raise UsageError(
            f"architecture '{recipe.architecture}' cannot do task '{recipe.task}': "
            "'teacher' does super-resolution, all others dehaze"
        )
    task: Task
    if recipe.task == "super-resolution":
        task = SuperResolutionTask(model, loss=recipe.loss)
    elif recipe.task == "distill":
        settings = recipe.distillation
        task = DistillTask(
            model,
            _teacher(settings.teacher),
            loss=recipe.loss,
            measure=settings.loss,
            w_fa=settings.weight,
            guidance=settings.guidance,
            projections=settings.projections,
            pool=settings.pool,
            temperature=settings.temperature,
        )
    else:
        task = DehazeTask(model, loss=recipe.loss)
    return task.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _teacher(name: str) -> nn.Module:
    model, _ = load(name or "teacher")
    if not isinstance(model, Teacher):
        raise UsageError(
            f"'{name}' is not a super-resolution teacher", "train one with: dehaze train teacher --data DIR"
        )
    return model


def _fingerprint(weights: dict[str, Tensor]) -> str:
    """Short hash of a network's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _initial_weights(name: str, model: nn.Module) -> dict[str, Tensor] | None:
    if not name:
        return None
    loaded, header = load(name)
    if header.architecture != architecture_of(model) or config_dict(loaded) != config_dict(model):
        raise UsageError(
            f"'{name}' holds a {header.architecture} of another shape than the recipe's "
            f"{architecture_of(model)}"
        )
    return loaded.state_dict()


def _silence(event: str, figures: dict[str, Any]) -> None:
    """Hear nothing."""


def _source_commit() -> str:
    """Commit of the code when it runs from its own checkout; empty otherwise."""
    package = Path(__file__).parents[1]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"],
            cwd=package,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    root, commit = done.stdout.split()[-2:]
    return commit if Path(root).resolve() == package.parents[1].resolve() else ""
