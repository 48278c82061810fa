"""What `dehaze train` and `dehaze distill` share: flags to a request, events and an outcome to words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dehaze.cli import options as opt
from dehaze.cli import output
from dehaze.cli.errors import ExitStatus
from dehaze.errors import UsageError

if TYPE_CHECKING:
    from dehaze.cli.output import Bar, Output
    from dehaze.training.recipe import Recipe
    from dehaze.training.session import Plan, Request

DATA, RECIPE, RUN = "Data", "Recipe", "Run"

DataOption = Annotated[
    list[Path],
    typer.Option("--data", metavar="DIR", rich_help_panel=DATA, help="RESIDE, or any folder of pairs."),
]
ClearOption = Annotated[
    list[Path],
    typer.Option("--clear", metavar="DIR", rich_help_panel=DATA, help="Clear pictures to make haze over."),
]
DepthOption = Annotated[
    list[str],
    typer.Option(
        "--depth",
        metavar="DIR|pseudo",
        rich_help_panel=DATA,
        help="Their depth maps, same names; 'pseudo' draws plausible depth. One for each --clear.",
    ),
]
ShareOption = Annotated[
    list[float],
    typer.Option(
        "--share",
        rich_help_panel=DATA,
        help="Weight in a batch of each --data, then of each --clear. Without it: equal.",
    ),
]
ValidationOption = Annotated[
    list[Path],
    typer.Option(
        "--val",
        metavar="DIR",
        rich_help_panel=DATA,
        help="Pairs to validate on. Without it: a few scenes are held out.",
    ),
]
DataNameOption = Annotated[
    list[str],
    typer.Option(
        "--data-name", rich_help_panel=DATA, help="What the data is and its terms, for the checkpoint."
    ),
]
LicenceOption = Annotated[
    str,
    typer.Option("--licence", rich_help_panel=DATA, help="Terms of the weights, for the checkpoint."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "-R",
        "--recipe",
        metavar="NAME|FILE",
        rich_help_panel=RECIPE,
        show_default=False,
        help="Recipe in the package or a TOML file; 'paper' is section 4.3 as written.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=RECIPE,
        help="Override any setting of the recipe, such as optimiser.clip=0.5.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, rich_help_panel=RECIPE, help="Steps in all, shared among the recipe's stages."
    ),
]
LrOption = Annotated[float | None, typer.Option("--lr", rich_help_panel=RECIPE, help="Peak learning rate.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", rich_help_panel=RECIPE, help="Seed of weights and batches.")
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        rich_help_panel=RUN,
        show_default=False,
        help="Folder of the run; one that holds a run is resumed. Without it: runs/<recipe>.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        min=0,
        rich_help_panel=RUN,
        help="Stop after this long; the same command goes on from there.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume/--no-resume", rich_help_panel=RUN, help="Go on with a run the folder holds."),
]
InitialOption = Annotated[
    str,
    typer.Option(
        "--init",
        metavar="NAME|PATH",
        rich_help_panel=RUN,
        show_default=False,
        help="Start from a checkpoint's weights.",
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile", rich_help_panel=RUN, help="Compile the step: a minute of waiting, then faster."
    ),
]


@dataclass(frozen=True)
class Lesson:
    """What is trained on, how and where."""

    data: DataOption = field(default_factory=list)
    clear: ClearOption = field(default_factory=list)
    depth: DepthOption = field(default_factory=list)
    share: ShareOption = field(default_factory=list)
    val: ValidationOption = field(default_factory=list)
    data_name: DataNameOption = field(default_factory=list)
    licence: LicenceOption = ""
    recipe: RecipeOption = None
    overrides: SetOption = field(default_factory=list)
    steps: StepsOption = None
    lr: LrOption = None
    seed: SeedOption = None
    folder: FolderOption = None
    max_minutes: MinutesOption = None
    resume: ResumeOption = True
    initial: InitialOption = ""
    compile_step: CompileOption = False
    device: opt.DeviceOption = "auto"


def teach(lesson: Lesson, recipe: str, settings: dict[str, str], out: Output, *, dry_run: bool) -> None:
    """Carry out a lesson, or say what it would do.

    Args:
        lesson: The flags.
        recipe: Name of the recipe where the flags name none.
        settings: What the command itself changes in the recipe; `--set` has the last word.
        out: The command's output.
        dry_run: Only say what would be done.

    Raises:
        typer.Exit: The run was interrupted.
    """
    from dehaze.device import computes_bf16, resolve_device
    from dehaze.training.distributed import is_main_process
    from dehaze.training.session import plan, train

    if not is_main_process():  # all but errors is said once, by the main process
        out = output.start(quiet=True, no_progress=True, debug=out.debug)
    request = _request(lesson, _recipe(lesson, recipe, settings))
    if request.recipe.precision == "bf16" and not computes_bf16(resolve_device(lesson.device).type):
        out.warning("this processor has no bf16 arithmetic: fp32 is used instead, which is faster")
    _warn_of_idle_settings(lesson, out)
    if dry_run:
        found = plan(request)
        if is_main_process():
            _say_plan(found, request, out)
        return
    with out.progress(request.recipe.name, unit="steps") as bar:
        outcome = train(request, _Listener(out, bar))
    progress = outcome.progress
    out.record(
        {
            "event": "done",
            "reason": outcome.reason,
            "step": progress.step,
            "best_psnr": progress.best_metric,
            "best_step": progress.best_step,
            "checkpoint": str(outcome.checkpoint),
        }
    )
    out.line(
        f"{_REASONS[outcome.reason]} at step {progress.step} after {progress.seconds / 60:.1f} min: "
        f"best {progress.best_metric:.2f} dB at step {progress.best_step}"
    )
    out.line(f"checkpoint: {outcome.checkpoint}")
    if not outcome.finished:
        out.line("the same command goes on from here")
    if outcome.reason in _SIGNALLED:
        raise typer.Exit(_SIGNALLED[outcome.reason])


_REASONS = {
    "finished": "finished",
    "time": "time is up",
    "interrupted": "interrupted",
    "terminated": "terminated",
}
_SIGNALLED = {"interrupted": ExitStatus.INTERRUPTED, "terminated": ExitStatus.TERMINATED}


def _request(lesson: Lesson, recipe: Recipe) -> Request:
    from dehaze.training.session import Request
    from dehaze.training.sources import DataSpec

    return Request(
        recipe=recipe,
        data=DataSpec(
            roots=tuple(lesson.data),
            clear=tuple(lesson.clear),
            depth=tuple(lesson.depth),
            shares=tuple(lesson.share),
            validation=tuple(lesson.val),
            names=tuple(lesson.data_name),
        ),
        folder=lesson.folder or Path("runs") / recipe.name,
        device=lesson.device,
        max_minutes=lesson.max_minutes,
        resume=lesson.resume,
        compile=lesson.compile_step,
        initial=lesson.initial,
        licence=lesson.licence,
    )


def _warn_of_idle_settings(lesson: Lesson, out: Output) -> None:
    """Say which settings named by `--set` do nothing, because all pictures come with their haze."""
    from dehaze.training.recipe import MADE_HAZE

    idle = [name for name in _overrides(lesson) if name.split(".")[0] in MADE_HAZE]
    if idle and not lesson.clear:
        out.warning(
            f"{', '.join(idle)}: no effect on --data, whose pictures come with their haze; only on --clear"
        )


def _recipe(lesson: Lesson, recipe: str, settings: dict[str, str]) -> Recipe:
    from dehaze.training.recipe import load_recipe

    overrides = settings | _overrides(lesson)
    if lesson.lr is not None:
        overrides["optimiser.lr"] = str(lesson.lr)
    if lesson.seed is not None:
        overrides["seed"] = str(lesson.seed)
    return load_recipe(lesson.recipe or recipe, overrides, steps=lesson.steps)


def _overrides(lesson: Lesson) -> dict[str, str]:
    """The settings that `--set` names."""
    found = {}
    for text in lesson.overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, got '{text}'", "for example: --set optimiser.clip=0.5")
        found[key.strip()] = value.strip()
    return found


class _Listener:
    """Passes events of a run on: to --json, to a line each, and to the progress bar."""

    def __init__(self, out: Output, bar: Bar) -> None:
        self._out, self._bar = out, bar
        self._validated = ""

    def __call__(self, event: str, figures: dict[str, Any]) -> None:
        out = self._out
        out.record({"event": event, **figures})
        if event == "step":
            self._show_step(figures)
        elif event == "validation":
            self._validated = f"val {figures['psnr']:.2f} dB"
            best = "  best so far" if figures["best"] else ""
            out.line(f"step {figures['step']}: validation {figures['psnr']:.2f} dB{best}")
        elif event == "resume":
            self._bar.update(done=figures["step"], total=figures["steps"])
            out.line(f"going on from step {figures['step']} of {figures['steps']}")
        elif event == "data":
            out.detail("data: " + ", ".join(f"{k} {v}" for k, v in figures.items()))

    def _show_step(self, figures: dict[str, Any]) -> None:
        parts = {k: v for k, v in figures.items() if k not in _NOT_LOSSES}
        total = parts.pop("total")
        if parts.get("pixel") == total:
            del parts["pixel"]  # the only part is the whole
        said = [f"loss {total:.4f}", self._validated, f"{figures['pictures_per_s']:.3g} pictures/s"]
        said += [f"{k} {v:.4f}" for k, v in parts.items()]  # last, for a narrow terminal cuts the end
        self._bar.update(
            done=figures["step"],
            total=figures["steps"],
            text="  ".join(filter(None, said)),
            left=figures["seconds_left"],
        )


_NOT_LOSSES = {"step", "steps", "lr", "pictures_per_s", "seconds_left"}


def _say_plan(found: Plan, request: Request, out: Output) -> None:
    from dehaze.training.recipe import MADE_HAZE

    recipe = found.recipe.to_dict()
    if out.as_json:
        out.record(
            {
                "recipe": recipe,
                "data": found.data,
                "parameters": found.parameters,
                "steps": found.steps,
                "seconds_per_step": found.seconds_per_step,
                "seconds": found.seconds,
                "validation_seconds": found.validation_seconds,
                "resumes_at": found.resumes_at,
                "output": str(request.folder),
            }
        )
        return
    for key, value in _flatten(recipe):
        if request.data.clear or key.split(".")[0] not in MADE_HAZE:
            out.data(f"{key} = {value}")
    out.data("")
    for key, value in found.data.items():
        out.data(f"data {key}: {value}")
    out.data(f"parameters: {found.parameters:,}")
    out.data(f"steps: {found.steps:,}" + (f" (from step {found.resumes_at:,})" if found.resumes_at else ""))
    speeds = ", ".join(f"{1000 * s:.0f} ms" for s in found.seconds_per_step)
    out.data(
        f"time: about {_duration(found.seconds)} to go (a step at each stage: {speeds}; "
        f"a validation: {found.validation_seconds:.1f} s)"
    )
    out.data(f"output: {request.folder}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flatten(v, f"{prefix}{k}.")]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [pair for i, v in enumerate(value) for pair in _flatten(v, f"{prefix}{i}.")]
    return [(prefix[:-1], value)]
