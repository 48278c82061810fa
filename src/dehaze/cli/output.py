"""The only way out: data on stdout, everything else on stderr, progress only on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from dehaze.errors import DehazeError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What could steer the terminal, from a file's name or a foreign header."""

_LAST_COLUMN = 24
"""Least width of a table's last column, which may wrap."""

Unit = Literal["files", "frames", "steps", "bytes"]


def one_line(text: str) -> str:
    """Escape line breaks, which names of files may hold."""
    return text.replace("\n", "\\n")


class StdoutError(DehazeError):
    """Data could not be written to stdout, so the command cannot go on."""


@dataclass
class Bar:
    """A progress bar, or nothing at all where progress is not shown."""

    _progress: Progress | None
    _task: TaskID | None

    def advance(self, amount: float = 1) -> None:
        """Count `amount` more as done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=amount, visible=True)

    def update(
        self,
        done: float | None = None,
        total: float | None = None,
        text: str | None = None,
        left: float | None = None,
    ) -> None:
        """Set what is done, the total, the description or the seconds left outright; None leaves one."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, description=text, visible=True)
            if left is not None:
                self._progress.update(self._task, left=left)


class Output:
    """What one command says, and how.

    Args:
        as_json: `record` writes JSON lines; `line` says nothing.
        quiet: Only warnings and errors are said on stderr.
        verbose: `detail` speaks too.
        no_progress: No progress bars, not even on a terminal.
        debug: Errors come with their traceback.
    """

    def __init__(
        self,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        no_progress: bool = False,
        debug: bool = False,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.debug = debug
        self._no_progress = no_progress
        self._warned: set[str] = set()
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The stderr console (made on first use, for importing Rich takes a while)."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._console

    def data(self, text: str) -> None:
        """Write one line of data to stdout.

        Raises:
            StdoutError: It is closed, or its disk is full.
        """
        with _stdout() as stdout:
            stdout.write(text + "\n")

    def binary(self, data: bytes | memoryview) -> None:
        """Write bytes to stdout as they are; raises like `data`."""
        with _stdout() as stdout:
            stdout.buffer.write(data)

    def record(self, values: Mapping[str, Any]) -> None:
        """Write one JSON object as a line to stdout if --json was given, else nothing."""
        if self.as_json:
            self.data(json.dumps(values))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table to stdout as data: numbers to the right, one row a line, never cut when piped."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False)
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        if not console.is_terminal:
            console.width = 10_000
        else:  # the last column may wrap; beyond that the terminal wraps lines, and nothing is lost
            widest = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
            console.width = max(console.width, sum(widest[:-1]) + 2 * len(widest) + _LAST_COLUMN)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for index, name in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
            last = index == len(columns) - 1
            table.add_column(name, justify="right" if numeric else "left", no_wrap=not last, overflow="fold")
        for row in cells:
            table.add_row(*row)
        with _stdout():
            console.print(table)

    def line(self, text: str) -> None:
        """Say what was done, one line on stderr; silent with --quiet and --json."""
        if not self.quiet and not self.as_json:
            self._say(one_line(text))

    def detail(self, text: str) -> None:
        """Say more, on stderr, with --verbose only."""
        if self.verbose:
            self._say(one_line(text), style="dim")

    def note(self, text: str) -> None:
        """Say on stderr what a user may want to know though nothing is wrong; silent with --quiet."""
        if not self.quiet:
            self._say(one_line(text), label="note", style="cyan")

    def warning(self, text: str) -> None:
        """Say on stderr what a user must know though the work goes on; the same words only once."""
        if text in self._warned:
            return
        self._warned.add(text)
        self._say(one_line(text), label="warning", style="yellow")

    def error(self, message: str, hint: str = "") -> None:
        """Say on stderr what failed, in as many lines as it has, and what to do next."""
        self._say(message, label="error", style="bold red")
        if hint:
            self._say(hint, label="hint", style="cyan")

    @contextmanager
    def progress(self, text: str, total: float | None = None, unit: Unit = "files") -> Iterator[Bar]:
        """Show a progress bar on stderr while the block runs, if stderr is a terminal and nobody objects.

        One file alone gets none; bytes show only once the first arrive, as most models are here already.

        Args:
            text: What is going on, one or two words.
            total: How much there is to do; None if unknown.
            unit: What is counted.
        """
        alone = unit == "files" and total == 1
        if alone or self._no_progress or self.quiet or sys.stderr is None or not sys.stderr.isatty():
            yield Bar(None, None)
            return
        from rich.progress import Progress

        with Progress(*_columns(unit), console=self.console, transient=True) as progress:
            yield Bar(progress, progress.add_task(text, total=total, visible=unit != "bytes"))

    def _say(self, text: str, *, label: str = "", style: str = "") -> None:
        """Say something on stderr; where it is closed or full, the work goes on unsaid."""
        if sys.stderr is None:
            return
        from rich.text import Text

        text = _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
        said = Text.assemble((f"{label}:", style), " ", text) if label else Text(text, style)
        with suppress(OSError):
            self.console.print(said)


@contextmanager
def _stdout() -> Iterator[TextIO]:
    """Stdout, flushed in the end."""
    if sys.stdout is None:
        raise StdoutError("there is no stdout to write to: it is closed", "send it to a file or a program")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has seen enough
        raise
    except OSError as error:
        raise StdoutError(f"stdout cannot be written: {error.strerror}") from error


def _columns(unit: Unit) -> tuple[ProgressColumn, ...]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    text = TextColumn("{task.description}", markup=False)
    if unit == "bytes":
        return text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    if unit == "steps":  # the figures are long: what must not be cut stands before them
        return BarColumn(12), MofNCompleteColumn(), _time_left_column(), _figures_column()
    return text, BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()


def _time_left_column() -> ProgressColumn:
    """Time left as `Bar.update` was told, which knows better than the pace so far."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = task.fields.get("left")
            if left is None:
                return Text("-:--:-- left")
            minutes, seconds = divmod(round(left), 60)
            return Text(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")

    return TimeLeft()


def _figures_column() -> ProgressColumn:
    """The description on one line, cut at its end where the terminal is narrow, before any other column."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Figures(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.description, no_wrap=True, overflow="ellipsis")

    return Figures(Column(no_wrap=False))


_current = Output()


def start(**switches: bool) -> Output:
    """Begin a command's output; the top level's error messages follow the same switches.

    Args:
        **switches: See `Output`.
    """
    global _current
    _current = Output(**switches)
    return _current


def current() -> Output:
    """The output of the command that is running."""
    return _current
