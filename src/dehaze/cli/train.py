"""`dehaze train`: a super-resolution teacher, or a dehazing network on its own."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from dehaze.cli import lesson, output
from dehaze.cli import options as opt
from dehaze.errors import UsageError

What = Literal["teacher", "student", "lite", "aod-net"]
_RECIPES: dict[What, str] = {
    "teacher": "teacher",
    "student": "student",
    "lite": "student-lite",
    "aod-net": "aod-net",
}


def train(
    what: Annotated[
        What | None,
        typer.Argument(metavar="teacher|student|lite|aod-net", help="What to train.", show_default=False),
    ] = None,
    network: Annotated[
        What | None,
        typer.Option(
            "--model",
            metavar="NAME",
            rich_help_panel=lesson.RECIPE,
            show_default=False,
            help="The same, as an option: dehaze train --model aod-net.",
        ),
    ] = None,
    data: lesson.DataOption = [],  # noqa: B006
    clear: lesson.ClearOption = [],  # noqa: B006
    depth: lesson.DepthOption = [],  # noqa: B006
    share: lesson.ShareOption = [],  # noqa: B006
    val: lesson.ValidationOption = [],  # noqa: B006
    data_name: lesson.DataNameOption = [],  # noqa: B006
    licence: lesson.LicenceOption = "",
    recipe: lesson.RecipeOption = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            rich_help_panel=lesson.RECIPE,
            show_default=False,
            help="Teacher: dsc-mc-fsrcnn (default), fsrcnn, mc-fsrcnn, relu-mc-fsrcnn or dscbn-mc-fsrcnn.",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            rich_help_panel=lesson.RECIPE,
            show_default=False,
            help="Teacher: enlargement, 2 (the default) or 4.",
        ),
    ] = None,
    overrides: lesson.SetOption = [],  # noqa: B006
    steps: lesson.StepsOption = None,
    lr: lesson.LrOption = None,
    seed: lesson.SeedOption = None,
    folder: lesson.FolderOption = None,
    max_minutes: lesson.MinutesOption = None,
    resume: lesson.ResumeOption = True,
    initial: lesson.InitialOption = "",
    compile_step: lesson.CompileOption = False,
    device: opt.DeviceOption = "auto",
    dry_run: opt.DryRunOption = False,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    verbose: opt.VerboseOption = False,
    no_progress: opt.NoProgressOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Train a teacher, or a dehazing network without one.

    \b
      dehaze train teacher --data ./RESIDE
      dehaze train student --data ./RESIDE --max-minutes 60
      dehaze train lite --clear ./nyu/images --depth ./nyu/depth --val ./SOTS/indoor
    """
    chosen = _chosen(what, network)
    settings = _network_settings(chosen, variant, scale)
    given = lesson.Lesson(
        recipe=recipe or _RECIPES[chosen],
        device=device,
        data=data,
        clear=clear,
        depth=depth,
        share=share,
        val=val,
        data_names=data_name,
        licence=licence,
        settings=settings,
        overrides=overrides,
        steps=steps,
        lr=lr,
        seed=seed,
        folder=folder,
        max_minutes=max_minutes,
        resume=resume,
        initial=initial,
        compile=compile_step,
    )
    out = output.start(as_json=as_json, quiet=quiet, verbose=verbose, no_progress=no_progress, debug=debug)
    lesson.teach(given, out, dry_run=dry_run)


def _chosen(what: What | None, network: What | None) -> What:
    if what and network and what != network:
        raise UsageError(f"told to train '{what}' and --model '{network}': name one")
    chosen = what or network
    if chosen is None:
        raise UsageError(
            f"nothing named to train: expected one of {', '.join(_RECIPES)}",
            "for example: dehaze train student --data ./RESIDE",
        )
    return chosen


def _network_settings(what: str, variant: str | None, scale: int | None) -> dict[str, str]:
    if what != "teacher":
        if variant or scale:
            raise UsageError("--variant and --scale are for 'dehaze train teacher'")
        return {"task": "dehaze", "architecture": what}
    from dataclasses import asdict

    from dehaze.models import TEACHER_VARIANTS, TeacherConfig

    if variant and variant not in TEACHER_VARIANTS:
        raise UsageError(
            f"unknown teacher variant '{variant}': expected one of {', '.join(TEACHER_VARIANTS)}"
        )
    if scale not in (None, 2, 4):
        raise UsageError(f"--scale is {scale}: expected 2 or 4")
    chosen = asdict(TEACHER_VARIANTS[variant]) if variant else {}
    if scale:
        chosen["scale"] = scale
    standard = asdict(TeacherConfig())
    shape = {f"model.{k}": json.dumps(v) for k, v in chosen.items() if v != standard[k]}
    return {"task": "super-resolution", "architecture": "teacher"} | shape
