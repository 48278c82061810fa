"""`dehaze models`: the models there are, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dehaze.cli import options as opt
from dehaze.cli import output

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.weights.manifest import ModelEntry
    from dehaze.weights.publish import Plan

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, fetch, check and publish models. Bundled models need no network.",
)

NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        show_default=False,
        help="A name from 'dehaze models list', a file, or hf://owner/repo/file@revision; "
        "without it the default model.",
    ),
]


@app.command("list")
def list_(as_json: opt.JsonOption = False, debug: opt.DebugOption = False) -> None:
    """List the published models.

    \b
      dehaze models list
      dehaze models list --json
    """
    from dehaze.weights import list_models

    out = output.start(as_json=as_json, debug=debug)
    entries = list_models()
    if as_json:
        for entry in entries:
            out.record(_facts(entry))
        return
    if not entries:
        out.note("this installation bundles no model; give -m a file or an hf:// address")
        return
    out.table(
        ("NAME", "", "ROLE", "PARAMETERS", "WORKING SIZE", "MB", "WHERE"), [_row(entry) for entry in entries]
    )
    for entry in entries:
        out.data(f"\n{entry.name}: {entry.description}")


def _facts(entry: ModelEntry) -> dict[str, Any]:
    from dataclasses import asdict

    from dehaze.weights.library import is_here

    return {**asdict(entry), "here": is_here(entry)}


def _row(entry: ModelEntry) -> tuple[object, ...]:
    from dehaze.weights.library import is_here

    where = entry.source if entry.source == "bundled" else "hub, cached" if is_here(entry) else "hub"
    return (
        entry.name,
        "default" if entry.is_default else "",
        entry.role,
        entry.parameters,
        entry.working_size or "any",
        round(entry.bytes / 1e6, 2),
        where,
    )


@app.command()
def pull(
    name: NameArgument = None,
    force: Annotated[bool, typer.Option("--force", help="Download again even what is in the cache.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take a file that has changed since its first use as it is now.")
    ] = False,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    no_progress: opt.NoProgressOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Make sure that a model's file is here, downloading it if it lies on the Hub.

    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean everywhere.

    \b
      dehaze models pull hf://owner/repo/file.safetensors@revision
    """
    from dehaze.weights.library import fetch

    out = output.start(as_json=as_json, quiet=quiet, no_progress=no_progress, debug=debug)
    with out.progress("downloading", unit="bytes") as bar:
        found = fetch(name, progress=bar.update, force=force, accept=accept)
    out.record(
        {
            "name": found.name,
            "path": str(found.path),
            "sha256": found.sha256,
            "bytes": found.bytes,
            "address": found.address or None,
        }
    )
    out.line(f"{found.name}: {found.bytes:,} bytes, sha256 {found.sha256}")
    out.line(f"path: {found.path}")
    if found.address:
        out.line(f"pinned: {found.address}")


@app.command()
def path(
    name: NameArgument = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Print where a model's file is; asks no network.

    \b
      cp "$(dehaze models path)" ./model.safetensors
    """
    from dehaze.weights.library import locate

    out = output.start(as_json=as_json, debug=debug)
    found = locate(name)
    out.record({"path": str(found)})
    if not as_json:
        out.data(str(found))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="Models to check; without any: all published ones and all files used from the Hub.",
        ),
    ] = None,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Check files against their checksums; asks no network. Exit status 4 if one is wrong.

    \b
      dehaze models verify
    """
    from dataclasses import asdict

    from dehaze.errors import ModelError
    from dehaze.weights import library

    out = output.start(as_json=as_json, quiet=quiet, debug=debug)
    verdicts = [library.verify(name) for name in names or library.everything()]
    for verdict in verdicts:
        out.record(asdict(verdict))
        out.line(f"{verdict.state:<15} {verdict.name}: {verdict.detail}")
    bad = ("damaged", "missing", "not downloaded") if names else ("damaged", "missing")
    wrong = [v for v in verdicts if v.state in bad]
    if wrong:
        raise ModelError(
            f"{len(wrong)} of {len(verdicts)} models are not as they should be: "
            + ", ".join(verdict.name for verdict in wrong),
            "fetch again with: dehaze models pull --force NAME; "
            "a bundled one with: pip install --force-reinstall dehaze-cli",
        )


@app.command()
def push(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the Hub.")],
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A .safetensors file of ours.")],
    public: Annotated[
        bool, typer.Option("--public", help="If the repository has to be created: for all to see.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: opt.DryRunOption = False,
    as_json: opt.JsonOption = False,
    quiet: opt.QuietOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Upload a checkpoint with its model card to the Hub, after showing both and asking.

    Needs a token with write permission in HF_TOKEN, or a login by 'hf auth login'.

    \b
      dehaze models push me/my-dehazer runs/student/best.safetensors
    """
    from pathlib import Path

    from dehaze.errors import ModelError
    from dehaze.weights import publish

    out = output.start(as_json=as_json, quiet=quiet, debug=debug)
    path = Path(checkpoint).expanduser()
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path} is not a .safetensors file", "name one written by 'dehaze train' or 'dehaze distill'"
        )
    plan = publish.plan(repository, path, public=public)
    _show(plan, out)
    if dry_run:
        return
    if not yes:
        _ask(plan)
    address = publish.send(plan, progress=not quiet and out.console.is_terminal)
    out.record({"address": str(address), "sha256": plan.sha256, "bytes": plan.bytes})
    if not as_json:
        out.data(str(address))


def _show(plan: Plan, out: Output) -> None:
    where = "exists" if plan.exists else "will be created"
    out.line(f"repository: {plan.address.repository} ({where}, {'private' if plan.private else 'public'})")
    for name, size in ((plan.address.file, plan.bytes), ("README.md", len(plan.card.encode()))):
        replaced = ", replaces the one that is there" if name in plan.replaces else ""
        out.line(f"file: {name}, {size:,} bytes{replaced}")
    out.line(f"sha256: {plan.sha256}")
    for text in ("", *plan.card.splitlines()):
        out.line(text)


def _ask(plan: Plan) -> None:
    import sys

    from dehaze.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was sent: there is no terminal to ask on", "add --yes to send without asking"
        )
    if not typer.confirm(f"Send this to {plan.address.repository}?", err=True):
        raise typer.Abort
