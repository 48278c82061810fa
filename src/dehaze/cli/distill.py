"""`dehaze distill`: a dehazing network guided by a frozen super-resolution teacher (the paper's method)."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dehaze.cli import lesson
from dehaze.cli import options as opt

AFFINITY = "Feature affinity (3.3)"
_RECIPES = {"student": "student", "lite": "student-lite"}


@opt.grouped
def distill(
    *,
    given: lesson.Lesson,
    student: Annotated[
        Literal["student", "lite"] | None,
        typer.Option(
            "--student",
            rich_help_panel=lesson.RECIPE,
            show_default=False,
            help="Which network to teach. Without it: the recipe's, or student.",
        ),
    ] = None,
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
    dry_run: opt.DryRunOption = False,
    messages: opt.Messages,
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
    out = messages.start()
    lesson.teach(given, _RECIPES[student or "student"], settings, out, dry_run=dry_run)
