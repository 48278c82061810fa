"""`dehaze distill`: a dehazing network guided by a frozen super-resolution teacher (the paper's method)."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dehaze.cli import lesson, output
from dehaze.cli import options as opt

AFFINITY = "Feature affinity (3.3)"


def distill(
    data: lesson.DataOption = [],  # noqa: B006
    clear: lesson.ClearOption = [],  # noqa: B006
    depth: lesson.DepthOption = [],  # noqa: B006
    share: lesson.ShareOption = [],  # noqa: B006
    val: lesson.ValidationOption = [],  # noqa: B006
    data_name: lesson.DataNameOption = [],  # noqa: B006
    licence: lesson.LicenceOption = "",
    student: Annotated[
        Literal["student", "lite"] | None,
        typer.Option(
            "--student",
            rich_help_panel=lesson.RECIPE,
            show_default=False,
            help="Which network to teach. Without it: the recipe's, or student.",
        ),
    ] = None,
    recipe: lesson.RecipeOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="NAME|PATH",
            rich_help_panel=AFFINITY,
            show_default=False,
            help="Teacher's checkpoint. Without it: the bundled one.",
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            "--weight", min=0, rich_help_panel=AFFINITY, show_default=False, help="w_FA, 0.25 (Table 7)."
        ),
    ] = None,
    loss: Annotated[
        Literal["l2", "l1", "kl"] | None,
        typer.Option("--affinity", rich_help_panel=AFFINITY, show_default=False, help="l2 (Table 8)."),
    ] = None,
    guidance: Annotated[
        Literal["hr", "lr"] | None,
        typer.Option("--guidance", rich_help_panel=AFFINITY, show_default=False, help="hr (Table 6)."),
    ] = None,
    projections: Annotated[
        bool, typer.Option("--projections", rich_help_panel=AFFINITY, help="Learn 1 x 1 projections.")
    ] = False,
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
    """Train a dehazing network on hazy pictures, guided by a teacher that sees the clear ones.

    \b
      dehaze distill --data ./RESIDE
      dehaze distill --data ./RESIDE --recipe paper
      torchrun --nproc-per-node 4 -m dehaze distill --data ./RESIDE
    """
    flags = {
        "distillation.teacher": teacher,
        "distillation.weight": weight,
        "distillation.loss": loss,
        "distillation.guidance": guidance,
        "distillation.projections": "true" if projections else None,
    }
    settings = {k: str(v) for k, v in flags.items() if v is not None}
    settings["task"] = "distill"
    if student is not None:
        settings["architecture"] = student
    given = lesson.Lesson(
        recipe=recipe or {"student": "student", "lite": "student-lite"}[student or "student"],
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
