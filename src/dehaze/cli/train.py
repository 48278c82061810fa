"""`dehaze train`: a super-resolution teacher, or a dehazing network on its own."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from dehaze.cli import lesson
from dehaze.cli import options as opt
from dehaze.errors import UsageError

What = Literal["teacher", "student", "lite", "aod-net"]
_RECIPES: dict[What, str] = {
    "teacher": "teacher",
    "student": "student",
    "lite": "student-lite",
    "aod-net": "aod-net",
}


@opt.grouped
def train(
    what: Annotated[
        What | None,
        typer.Argument(metavar="teacher|student|lite|aod-net", help="What to train.", show_default=False),
    ] = None,
    *,
    given: lesson.Lesson,
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
    dry_run: opt.DryRunOption = False,
    messages: opt.Messages,
) -> None:
    """Train a teacher, or a dehazing network without one.

    \b
      dehaze train teacher --data ./RESIDE
      dehaze train student --data ./RESIDE --max-minutes 60
      dehaze train lite --clear ./nyu/images --depth ./nyu/depth --val ./SOTS/indoor
    """
    chosen = _chosen(what, network)
    settings = _network_settings(chosen, variant, scale)
    out = messages.start()
    lesson.teach(given, _RECIPES[chosen], settings, out, dry_run=dry_run)


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
        if variant is not None or scale is not None:
            raise UsageError("--variant and --scale are for 'dehaze train teacher'")
        return {"task": "dehaze", "architecture": what}
    from dataclasses import asdict

    from dehaze.models import TEACHER_VARIANTS

    if variant and variant not in TEACHER_VARIANTS:
        raise UsageError(
            f"unknown teacher variant '{variant}': expected one of {', '.join(TEACHER_VARIANTS)}"
        )
    if scale not in (None, 2, 4):
        raise UsageError(f"--scale is {scale}: expected 2 or 4")
    chosen = asdict(TEACHER_VARIANTS[variant]) if variant else {}
    if scale:
        chosen["scale"] = scale
    shape = {f"model.{k}": json.dumps(v) for k, v in chosen.items()}
    return {"task": "super-resolution", "architecture": "teacher"} | shape
