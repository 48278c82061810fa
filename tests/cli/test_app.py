"""The frame: commands, exit statuses, what goes to which stream, and what is not imported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from dehaze.cli import main, output
from dehaze.cli.app import COMMANDS, help_of
from dehaze.cli.errors import ExitStatus, run
from dehaze.errors import DataError, DehazeError, ModelError, PhotoError, UsageError
from dehaze.version import __version__

HEAVY = ("torch", "cv2", "numpy", "av", "PIL", "huggingface_hub", "matplotlib", "onnxruntime")


def python(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **settings)  # type: ignore[call-overload,no-any-return]


def app_raising(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def fail(as_json: bool = False, debug: bool = False) -> None:
        output.start(as_json=as_json, debug=debug)
        raise error

    return app


def test_help_and_version_import_nothing_heavy() -> None:
    requests = [["--version"], [], ["--help"], *([entry.name, "--help"] for entry in COMMANDS)]
    code = (
        "import sys; from dehaze.cli import main\n"
        f"for request in {requests!r}:\n"
        "    status = main(request)\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    sys.stderr.write(f'{request} {status} {heavy}\\n')"
    )
    assert python(code).stderr.splitlines() == [f"{request} 0 []" for request in requests]


def test_help_flows_as_prose_but_keeps_examples_line_by_line() -> None:
    def command() -> None:
        """Do this.

          dehaze this        once
          dehaze this twice

        It is done in a way that takes
        two lines to tell.
        """

    assert help_of(command).split("\n\n") == [
        "Do this.",
        "  dehaze this        once\n  dehaze this twice",
        "It is done in a way that takes two lines to tell.",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    assert capsys.readouterr().out == f"dehaze {__version__}\n"


def test_python_m_dehaze_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "dehaze", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"dehaze {__version__}\n")


def test_help_names_every_command_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for entry in COMMANDS:
        assert f" {entry.name} " in text
    for words in (
        "0 done",
        "1 failed",
        "2 wrong usage",
        "3 some inputs failed",
        "4 model not available",
        "130 ",
    ):
        assert words in text


FULL = "open('/dev/full', 'w')"
MODEL_FLAGS = "--model -m --device -d --precision --resolution"
PICTURE_FLAGS = "--format -f --quality --metadata --bit-depth --max-pixels --strength --tile --compare"
MESSAGE_FLAGS = "--json --quiet -q --no-progress --debug"
OUTPUT_FLAGS = "--output -o --dry-run -v"
PROMISED = {
    "run": f"{MODEL_FLAGS} {PICTURE_FLAGS} {MESSAGE_FLAGS} {OUTPUT_FLAGS} --overwrite -y --fail-fast",
    "folder": f"{MODEL_FLAGS} {PICTURE_FLAGS} {MESSAGE_FLAGS} {OUTPUT_FLAGS} --overwrite -y --fail-fast "
    "--recursive -r --glob --shard --jobs -j --gallery",
    "video": f"{MODEL_FLAGS} {MESSAGE_FLAGS} {OUTPUT_FLAGS} --overwrite -y --strength --tile "
    "--codec --crf --audio --smooth --start --duration",
    "bench": f"{MODEL_FLAGS} {MESSAGE_FLAGS} --data --overwrite -y -v",
    "train": f"{MESSAGE_FLAGS} --data --device -d {OUTPUT_FLAGS} --max-minutes --resume",
    "distill": f"{MESSAGE_FLAGS} --data --teacher --device -d {OUTPUT_FLAGS} --max-minutes --resume",
    "synth": f"{MESSAGE_FLAGS} --clear --depth --output -o --overwrite -y --dry-run --jobs -j",
    "export onnx": f"{MESSAGE_FLAGS} --model -m --output -o --overwrite -y",
    "models list": "--json --debug",
    "models pull": f"{MESSAGE_FLAGS} --force --accept",
    "models path": "--json --debug",
    "models verify": "--json --quiet -q --debug",
    "models push": "--json --quiet -q --debug --yes --dry-run",
    "info": "--json --debug",
}


@pytest.mark.parametrize("command", PROMISED)
def test_flags_are_a_promise_and_help_speaks_plainly(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert set(PROMISED[command].split()) <= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))
    assert not re.search(r"<(bool|int|float|str|list|path)\b", text)


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert "Usage: dehaze" in bare
    assert main(["--help"]) == 0
    assert bare.split() == capsys.readouterr().out.split()


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == ExitStatus.USAGE
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "'rnu'" in streams.err
    assert "'run'" in streams.err


def test_unknown_option_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "a.jpg", "--strenght", "1"]) == ExitStatus.USAGE
    error = capsys.readouterr().err
    assert "--strength" in error
    assert "dehaze run --help" in error


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (["run", "a.jpg", "--strength", "2"], "--strength is '2': expected at most 1"),
        (["run", "a.jpg", "--strength", "x"], "--strength is 'x': expected a number"),
        (["run", "a.jpg", "--quality", "0"], "--quality is '0': expected at least 1"),
        (["run", "a.jpg", "--quality", "1.5"], "--quality is '1.5': expected a whole number"),
        (["run", "a.jpg", "--bit-depth", "12"], "--bit-depth is '12': expected one of 'auto', '8', '16'"),
        (
            ["train", "x"],
            "the argument of 'dehaze train' is 'x': expected one of 'teacher', 'student', 'lite', 'aod-net'",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(
    request_: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(request_) == ExitStatus.USAGE
    assert capsys.readouterr() == ("", f"error: {said}\nhint: see: dehaze {request_[0]} --help\n")


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.start().error("a\x1b[31m.jpg\r\x9b2J", "café\nthen")
    assert capsys.readouterr().err == "error: a\\x1b[31m.jpg\\r\\x9b2J\nhint: café\nthen\n"


def test_a_name_with_a_line_break_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = output.start(verbose=True)
    for say in (out.line, out.detail, out.note, out.warning):
        say("a\nb.jpg")
    assert [line.endswith("a\\nb.jpg") for line in capsys.readouterr().err.splitlines()] == [True] * 4


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DehazeError("it failed"), 1, "error: it failed\n"),
        (PhotoError("there is no file a\nb.jpg"), 1, "error: there is no file a\\nb.jpg\n"),
        (DataError("these lack:\n  a"), 1, "error: these lack:\n  a\n"),
        (PhotoError("no picture", "look elsewhere"), 1, "error: no picture\nhint: look elsewhere\n"),
        (UsageError("not so"), 2, "error: not so\n"),
        (ModelError("no such model"), 4, "error: no such model\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (typer.Abort(), 1, "error: aborted\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_every_end_has_its_sentence_and_status(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app_raising(error), []) == status
    assert capsys.readouterr() == ("", said)


def test_an_interrupt_while_the_command_is_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_called: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dehaze.cli.app.build_app", interrupted)
    assert main(["run", "a.jpg"]) == ExitStatus.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_second_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_words: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output.Output, "error", again)
    for error in (KeyboardInterrupt(), PhotoError("no picture")):
        assert run(app_raising(error), []) == ExitStatus.INTERRUPTED


@pytest.mark.parametrize("error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA")])
def test_out_of_memory_is_no_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_raising(error), []) == 1
    assert capsys.readouterr().err.startswith("error: not enough memory")


def test_a_bug_asks_to_be_reported_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_raising(ZeroDivisionError("oops")), []) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in error
    assert "dehaze info" in error
    assert "Traceback" not in error


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_raising(PhotoError("no picture")), ["--debug"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("error: no picture\n")


def test_json_failures_are_objects_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_raising(ModelError("no such model", "list them")), ["--as-json"]) == 4
    assert json.loads(capsys.readouterr().out) == {
        "error": "no such model",
        "hint": "list them",
        "exit_status": 4,
    }


@pytest.mark.parametrize(
    "arguments", [["run", "--json"], ["run", "a.jpg", "--json", "--quality", "abc"], ["rnu", "--json"]]
)
def test_what_the_parser_refuses_is_an_object_too(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitStatus.USAGE
    record = json.loads(capsys.readouterr().out)
    assert set(record) == {"error", "hint", "exit_status"}
    assert record["exit_status"] == ExitStatus.USAGE


@pytest.mark.parametrize(
    ("call", "stdout", "said"),
    [
        ("record({})", FULL, "stdout cannot be written: No space left on device"),
        ("table(['x'], [[1]])", FULL, "stdout cannot be written: No space left on device"),
        ("record({})", "None", "there is no stdout to write to: it is closed"),
        ("unknown", FULL, "unexpected AttributeError"),
        ("data('x')", "None", "there is no stdout to write to: it is closed"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_stdout_that_takes_nothing_is_one_sentence(call: str, stdout: str, said: str) -> None:
    code = (
        "import sys, typer; from dehaze.cli import output, errors; app = typer.Typer()\n"
        "@app.command()\n"
        f"def talk(): output.start(as_json=True).{call}\n"
        f"sys.stdout = {stdout}\n"
        "status = errors.run(app, [])\n"
        "sys.stdout = sys.__stdout__\n"
        "sys.exit(status)"
    )
    done = python(code)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")
    assert "Traceback" not in done.stderr.partition("Exception ignored")[0]


def test_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = (
        "import sys, typer; from dehaze.cli import output, errors; app = typer.Typer()\n"
        "@app.command()\n"
        "def chatter():\n"
        "    while True: output.start().data('x' * 100)\n"
        "sys.exit(errors.run(app, []))"
    )
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_signals_unwind_so_that_nothing_is_left_behind(name: str, status: int, tmp_path: Path) -> None:
    half = tmp_path / "half"
    code = (
        "import sys, time, pathlib, typer; from dehaze.cli import errors; app = typer.Typer()\n"
        "@app.command()\n"
        "def wait(path: str):\n"
        "    file = pathlib.Path(path)\n"
        "    try: file.touch(); time.sleep(30)\n"
        "    finally: file.unlink()\n"
        "sys.exit(errors.run(app, sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(half)], stderr=subprocess.PIPE, text=True)
    while not half.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.Signals[name])
    assert process.communicate(timeout=20)[1].count("\n") <= 1
    assert process.returncode == status
    assert not half.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_nohup_outlives_its_terminal() -> None:
    code = (
        "import os, signal, sys, typer; from dehaze.cli import errors; app = typer.Typer()\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "@app.command()\n"
        "def last(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.exit(errors.run(app, []))"
    )
    assert python(code).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
@pytest.mark.parametrize(("own", "turns"), [(None, "10000"), ("7", "7")])
def test_pytorch_does_not_wait_long_for_threads_that_do_not_run(own: str | None, turns: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"GOMP_SPINCOUNT": own} if own else {})
    code = "from dehaze.cli import main; main(['--version']); import torch"
    assert f"GOMP_SPINCOUNT = '{turns}'" in python(code, env=environment).stderr


def said(capsys: pytest.CaptureFixture[str], **switches: bool) -> tuple[str, str]:
    out = output.start(**switches)
    out.line("done")
    out.detail("detail")
    out.note("note")
    out.warning("warning")
    out.warning("warning")
    out.error("error", "do this")
    out.record({"done": True})
    streams = capsys.readouterr()
    return streams.out, streams.err


def test_what_is_said_when(capsys: pytest.CaptureFixture[str]) -> None:
    trouble = "warning: warning\nerror: error\nhint: do this\n"
    assert said(capsys) == ("", "done\nnote: note\n" + trouble)
    assert said(capsys, verbose=True) == ("", "done\ndetail\nnote: note\n" + trouble)
    assert said(capsys, quiet=True) == ("", trouble)
    assert said(capsys, as_json=True) == ('{"done": true}\n', "note: note\n" + trouble)


def test_messages_are_neither_wrapped_nor_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]" + "x" * 500 + "[/nothing] :smile:"
    output.start().line(text)
    assert capsys.readouterr().err == text + "\n"


@pytest.mark.parametrize("switches", [{"no_progress": True}, {"quiet": True}])
def test_progress_is_silent_where_not_wanted(
    switches: dict[str, bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert progress_of(output.start(**switches), capsys) == ""


def test_progress_is_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert progress_of(output.start(), capsys) == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert progress_of(output.start(), capsys) == ""  # colours in a file are wanted, a moving bar is not
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "2/2" in progress_of(output.start(), capsys)


def progress_of(out: output.Output, capsys: pytest.CaptureFixture[str]) -> str:
    with out.progress("photos", total=2) as bar:
        bar.advance()
        bar.advance()
    streams = capsys.readouterr()
    assert streams.out == ""
    return streams.err


def test_a_piped_table_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.start().table(["name", "size"], [["x" * 300, 7], ["y", 12345]])
    lines = capsys.readouterr().out.splitlines()
    assert "x" * 300 in lines[-2]
    assert lines[-1].split() == ["y", "12345"]
    assert lines[-2].rstrip().endswith("    7")
