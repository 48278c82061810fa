"""`dehaze synth`: a data set in RESIDE's own layout, from clear pictures with depth or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dehaze.cli import options as opt
from dehaze.cli import output
from dehaze.errors import UsageError

if TYPE_CHECKING:
    from dehaze.data.synth import Layout, Shot

SOURCE = "Where scenes come from"
DEFAULT_SIZE = "620x460"


def synth(
    target: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Where ITS/ and SOTS/ go.", show_default=False),
    ],
    clear: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=SOURCE, show_default=False, help="Clear pictures."),
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=SOURCE,
            show_default=False,
            help="Their depth maps, of the same names: 8 or 16 bit, larger is farther, any unit.",
        ),
    ] = None,
    procedural: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=SOURCE,
            show_default=False,
            help="Render N roads, streets and meadows instead: no download needed.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            rich_help_panel=SOURCE,
            show_default=DEFAULT_SIZE,
            help="Size of rendered scenes.",
        ),
    ] = None,
    textures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=SOURCE,
            show_default=False,
            help="Photos to cover walls and ground of rendered scenes with.",
        ),
    ] = None,
    test: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="The last N scenes go to SOTS/indoor, the others to ITS. Without it: a tenth, at most 50.",
        ),
    ] = None,
    per_scene: Annotated[int, typer.Option(min=1, help="Hazy pictures of each ITS scene.")] = 10,
    border: Annotated[
        int, typer.Option(min=0, help="Pixels to cut from each side; RESIDE cuts 10 from NYU's frames.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Equal seeds write equal files.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            "-j", "--jobs", min=1, show_default=False, help="Threads. Without it: one for each processor."
        ),
    ] = None,
    overwrite: opt.ReplaceOption = False,
    dry_run: opt.DryRunOption = False,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    no_progress: opt.NoProgressOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Make a data set in RESIDE's names and layout, by RESIDE's rules (ITS and SOTS indoor).

    \b
      dehaze synth --clear ./nyu/images --depth ./nyu/depth --border 10 -o ./RESIDE
      dehaze synth --procedural 20 -o ./RESIDE      everything can be tried with this

    ITS/clear with ITS/depth also serve 'dehaze train --clear --depth', where each batch gets haze anew.
    """
    out = output.start(as_json=as_json, quiet=quiet, no_progress=no_progress, debug=debug)
    from dehaze.data.synth import check, plan, write

    inputs = [folder for folder in (clear, depth, textures) if folder]
    check(target, inputs, overwrite=overwrite)
    shots = _shots(clear, depth, procedural, size, textures, seed, border, jobs)
    layout = plan(len(shots), test, per_scene)
    if not dry_run:
        with out.progress("making haze", total=len(shots)) as bar:
            write(
                shots,
                target,
                layout,
                seed=seed,
                border=border,
                inputs=inputs,
                overwrite=overwrite,
                jobs=jobs,
                progress=bar.advance,
            )
    out.line(f"{'would write' if dry_run else 'wrote'} {_words(layout)} to {target}")
    out.record(
        {
            "output": str(target),
            "its": {"scenes": layout.train, "pictures": layout.train * per_scene},
            "sots": {"scenes": layout.test, "pictures": layout.pictures - layout.train * per_scene},
            "written": not dry_run,
        }
    )


def _shots(
    clear: Path | None,
    depth: Path | None,
    procedural: int | None,
    size: str | None,
    textures: Path | None,
    seed: int,
    border: int,
    jobs: int | None,
) -> list[Shot]:
    from dehaze.data.synth import check_border, shots_from_folders, shots_from_scenes

    if procedural is not None:
        if clear or depth:
            raise UsageError("--procedural makes its own scenes: leave --clear and --depth away")
        width, height = opt.size(size or DEFAULT_SIZE, least=32, example=DEFAULT_SIZE)
        check_border(border, height, width)
        return shots_from_scenes(procedural, (height, width), seed, textures)
    for option, given in (("--textures", textures), ("--size", size)):
        if given:
            raise UsageError(f"{option} only serves --procedural")
    if not clear or not depth:
        raise UsageError(
            "nothing to make haze from: expected --clear DIR with --depth DIR, or --procedural N",
            "try: dehaze synth --procedural 20 -o ./RESIDE",
        )
    return shots_from_folders(clear, depth, border, jobs)


def _words(layout: Layout) -> str:
    parts = []
    if layout.train:
        parts.append(f"ITS ({layout.train} scenes, {layout.train * layout.per_scene} hazy pictures)")
    if layout.test:
        parts.append(f"SOTS/indoor ({layout.test} scenes, {layout.test * 10} hazy pictures)")
    return " and ".join(parts)
