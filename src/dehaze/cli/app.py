"""The application: a table of commands, each in its own file, none of which imports anything heavy."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from dehaze.cli import output
from dehaze.version import __version__

STATUS = (
    "[bold]Exit status[/bold]: 0 done, 1 failed, 2 wrong usage (nothing written), "
    "3 some inputs failed (the rest done), 4 model not available, 130 interrupted."
)
ENVIRONMENT = (
    "[bold]Environment[/bold]: DEHAZE_MODEL and DEHAZE_DEVICE stand in for --model and --device, "
    "NO_COLOR turns colours off."
)


class Entry(NamedTuple):
    """One command: its name, where its function or `typer.Typer` is, and its panel in --help."""

    name: str
    module: str
    attribute: str
    panel: str


CLEAR, LEARN, MODELS = "Clear the haze", "Train and measure", "Models and this installation"

COMMANDS: tuple[Entry, ...] = (
    Entry("run", "dehaze.cli.run", "run", CLEAR),
    Entry("folder", "dehaze.cli.folder", "folder", CLEAR),
    Entry("video", "dehaze.cli.video", "video", CLEAR),
    Entry("bench", "dehaze.cli.bench", "bench", LEARN),
    Entry("train", "dehaze.cli.train", "train", LEARN),
    Entry("distill", "dehaze.cli.distill", "distill", LEARN),
    Entry("synth", "dehaze.cli.synth", "synth", LEARN),
    Entry("models", "dehaze.cli.models", "app", MODELS),
    Entry("export", "dehaze.cli.export", "app", MODELS),
    Entry("info", "dehaze.cli.info", "info", MODELS),
)


class Command(TyperCommand):
    """A command whose --help speaks of no Python types."""

    def get_params(self, ctx: Any) -> Any:  # noqa: D102
        return plain_types(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands whose --help speaks of no Python types."""

    def get_params(self, ctx: Any) -> Any:  # noqa: D102
        return plain_types(super().get_params(ctx), ctx)


def build_app(called: str | None = None) -> typer.Typer:
    """Put the commands of `COMMANDS` together.

    Args:
        called: The first word of the command line. If it names a command the others are left out, as making
            them takes longer than making the picture.
    """
    app = typer.Typer(
        name="dehaze",
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=f"{STATUS}\n\n{ENVIRONMENT}")(_dehaze)
    for entry in [entry for entry in COMMANDS if entry.name == called] or COMMANDS:
        target = getattr(importlib.import_module(entry.module), entry.attribute)
        if isinstance(target, typer.Typer):
            for command in target.registered_commands:
                command.cls, command.help, command.epilog = Command, help_of(command.callback), STATUS
            app.add_typer(target, name=entry.name, cls=Group, rich_help_panel=entry.panel)
        else:
            app.command(
                entry.name, cls=Command, rich_help_panel=entry.panel, help=help_of(target), epilog=STATUS
            )(target)
    return app


def plain_types(parameters: list[Any], context: Any) -> list[Any]:
    """Let --help show N or TEXT for a value, and nothing for an argument, where Typer says <list[str]>.

    That is no public part of Typer; a version without it shows its own words.
    """
    for parameter in parameters:
        describe = getattr(type(parameter), "display_type", None)
        argument = parameter.param_type_name == "argument"
        if describe is not None and (argument or parameter.metavar is None):
            theirs = describe(parameter, context).strip("<>")
            word = "" if argument else next((ours for kind, ours in _TYPES.items() if kind in theirs), theirs)
            vars(parameter)["display_type_rich"] = lambda ctx, word=word: word
    return parameters


_TYPES = {"bool": "", "int": "N", "float": "X", "str": "TEXT"}
"""What Typer calls a type -> what stands for a value of it."""


def help_of(command: Callable[..., Any] | None) -> str:
    """Help text of a command: its docstring, prose as paragraphs of any width, examples line by line.

    Prose ends with a full stop, examples do not.
    """
    paragraphs = (inspect.getdoc(command) or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) if part.endswith(".") else part for part in paragraphs)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.start().data(f"dehaze {__version__}")
        raise typer.Exit


def _dehaze(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Clear haze and fog from photos and video. The model is in the box: nothing to download.

    dehaze run foggy.jpg -o clear.jpg      one photo
    dehaze folder ./dashcam                a folder of photos and clips
    dehaze video drive.mp4                 one video, audio kept
    """
