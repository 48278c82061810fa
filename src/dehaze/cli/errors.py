"""One place where exceptions become a sentence on stderr and an exit status."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from types import FrameType
from typing import Any, NamedTuple

import typer

from dehaze.cli import output
from dehaze.errors import DataError, DehazeError


class ExitStatus(IntEnum):
    """What the command line promises to scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    SOME_FAILED = 3
    NO_MODEL = 4
    INTERRUPTED = 130
    TERMINATED = 143


class Failure(NamedTuple):
    """An exception in words."""

    message: str
    hint: str
    status: int

    def record(self) -> dict[str, Any]:
        """As the JSON object of --json."""
        return {"error": self.message, "hint": self.hint, "exit_status": int(self.status)}


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run an application; whatever goes wrong is said in one sentence and an exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    output.start(as_json="--json" in words)  # what the parser refuses is an object, too
    _terminate_like_interrupt()
    try:
        status = _command(app, arguments)
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
    if status == ExitStatus.INTERRUPTED:
        with suppress(KeyboardInterrupt):  # once more, while Rich is imported
            output.current().error("interrupted")
    return status


def _command(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="dehaze", standalone_mode=False)
    except Exception as error:
        return fail(error)
    return status if isinstance(status, int) else ExitStatus.DONE


def fail(error: Exception) -> int:
    """Report what ended the command; return its exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ExitStatus.DONE
    failure = explain(error)
    report(error, failure)
    with suppress(output.StdoutError, BrokenPipeError):  # what is wrong has been said on stderr
        output.current().record(failure.record())
    return failure.status


def report(error: Exception, failure: Failure) -> None:
    """Say a failure on stderr, with the traceback if --debug was given."""
    out = output.current()
    if out.debug and sys.stderr is not None:
        out.console.print("".join(traceback.format_exception(error)), markup=False, end="")
    words = failure.message, failure.hint
    if not isinstance(error, DataError):  # reports of data sets have several lines
        words = output.one_line(failure.message), output.one_line(failure.hint)
    out.error(*words)


def explain(error: Exception) -> Failure:
    """Put any exception into words."""
    if isinstance(error, DehazeError):
        return Failure(error.message, error.hint, error.exit_code)
    if hasattr(error, "format_message"):  # Typer's; its versions do not agree on a public base class
        return _usage(error)
    if isinstance(error, typer.Abort):
        return Failure("aborted", "", ExitStatus.FAILED)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure(
            "not enough memory for this",
            "use --resolution auto, or a smaller picture or batch",
            ExitStatus.FAILED,
        )
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return Failure(f"{where}{error.strerror}", "", ExitStatus.FAILED)
    return Failure(
        f"unexpected {type(error).__name__}: {error}",
        "this is a bug: please report it with what the same command says with --debug, and 'dehaze info'",
        ExitStatus.FAILED,
    )


def _usage(error: Any) -> Failure:
    message = _bad_value(error) or error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = f"see: {context.command_path} --help" if context is not None else ""
    return Failure(message[:1].lower() + message[1:], hint, error.exit_code)


_PLAIN = {
    "Input should be ": "",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "a valid number": "a number",
    "a valid integer": "a whole number",
}
"""Words of Typer's validator -> ours."""


def _bad_value(error: Any) -> str:
    """Say what a flag was and what is expected, where Typer passes on what its validator found."""
    found = getattr(error.__cause__, "errors", None)
    if found is None or error.param is None:
        return ""
    fault = found()[0]
    flags = [name for name in error.param.opts if name.startswith("--")]
    what = flags[0] if flags else f"the argument of '{error.ctx.command_path}'"
    reason, choice, choices = fault["msg"].partition(" is not one of ")
    reason = f"one of {choices.rstrip('.')}" if choice else reason.partition(",")[0]
    for theirs, ours in _PLAIN.items():
        reason = reason.replace(theirs, ours)
    return f"{what} is '{fault['input']}': expected {reason}"


def _terminate_like_interrupt() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that no temporary file stays behind."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        # A terminal that closes sends the other, which Windows lacks and nohup has us ignore.
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) == signal.SIG_DFL:
            signal.signal(hangup, stop)
