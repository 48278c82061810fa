"""`dehaze video`: one video in, a clear and steady one out."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dehaze.cli import options as opt
from dehaze.cli.errors import ExitStatus
from dehaze.cli.loading import check_request, load_dehazer, say_warnings
from dehaze.cli.targets import refuse_empty
from dehaze.errors import UsageError

if TYPE_CHECKING:
    from dehaze.cli.output import Output
    from dehaze.video import VideoReport

VIDEO = "Video"
"""Panel of --help."""

DEFAULT_SMOOTH = 0.5
DEFAULT_FPS = 25.0

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@opt.grouped
def video(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            show_default=False,
            help="A video, numbered pictures such as frames_%04d.png, a camera or a stream's URL.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            show_default=False,
            help="A file, or numbered pictures (clear_%04d.png). Without it: <stem>_dehazed.mp4 beside IN.",
        ),
    ] = None,
    overwrite: opt.OverwriteOption = False,
    dry_run: opt.DryRunOption = False,
    smooth: Annotated[
        float,
        typer.Option(
            "--smooth",
            metavar="SECONDS",
            min=0,
            rich_help_panel=VIDEO,
            help="Time over which the haze is averaged, along the motion and not across cuts; "
            "0: each frame by itself.",
        ),
    ] = DEFAULT_SMOOTH,
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            metavar="NAME",
            show_default=False,
            rich_help_panel=VIDEO,
            help="h264, h265, vp9, av1, prores or any FFmpeg encoder. Without it: H.264.",
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            "--crf",
            metavar="N",
            min=0,
            show_default=False,
            rich_help_panel=VIDEO,
            help="Quality in the encoder's scale, lower is better. Without it: hardly visible losses "
            "(18 for H.264).",
        ),
    ] = None,
    audio: Annotated[
        Literal["copy", "none"],
        typer.Option("--audio", metavar="copy|none", rich_help_panel=VIDEO, help="What to do with sound."),
    ] = "copy",
    start: Annotated[
        str,
        typer.Option(
            "--start", metavar="TIME", rich_help_panel=VIDEO, help="Begin here: 90, 1:30 or 0:01:30.5."
        ),
    ] = "0",
    duration: Annotated[
        str | None,
        typer.Option(
            "--duration", metavar="TIME", show_default=False, rich_help_panel=VIDEO, help="Do only so much."
        ),
    ] = None,
    fps: Annotated[
        float,
        typer.Option(
            "--fps", metavar="X", rich_help_panel=VIDEO, help="Frames a second of numbered pictures."
        ),
    ] = DEFAULT_FPS,
    *,
    inference: opt.Inference,
    messages: opt.Messages,
) -> None:
    """Clear the haze from a video; sound, subtitles, chapters and timing stay as they are.

    dehaze video drive.mp4                          writes drive_dehazed.mp4
    dehaze video drive.mkv -o clear.mkv --codec h265
    dehaze video drive.mp4 --start 1:30 --duration 10
    dehaze video frames_%04d.png -o clear_%04d.png

    Ctrl-C finishes what is done so far and keeps it as <stem>.partial<ext>, which plays; from a camera or a
    stream, under its own name. A second Ctrl-C leaves nothing. Numbered pictures that are done stay as they
    are in any case: after an interruption the same command needs -y.
    """
    out = messages.start()
    refuse_empty("input", source)
    refuse_empty("output", target)
    settings = inference.settings()
    times = parse_time(start, "--start"), None if duration is None else parse_time(duration, "--duration")
    from dehaze.video import (
        VideoSettings,
        check_source,
        check_target,
        check_video,
        default_target,
        dehaze_video,
        is_pattern,
    )

    work = VideoSettings(inference.strength, smooth, *times, fps, codec, crf, audio)
    check_source(source)
    path = default_target(source) if target is None else Path(target)
    check_target(source, path, overwrite=overwrite)
    if fps != DEFAULT_FPS and not is_pattern(source):
        out.warning("--fps has an effect only on numbered pictures")
    if dry_run:
        check_request(inference.model, settings)
        check_video(source, path, work, overwrite=overwrite)
        out.line(f"would write {path} from {source}")
        out.record({"input": source, "output": str(path), "dry_run": True})
        return
    dehazer = load_dehazer(out, inference.model, settings)
    say_warnings(out, dehazer)
    with out.progress(Path(source).name, unit="frames") as bar, _first_interrupt(out) as stop:
        report = dehaze_video(
            source,
            path,
            dehazer,
            work,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(done=done, total=total),
            stop=stop,
        )
    say_warnings(out, dehazer)
    say_video(report, out)
    out.record(video_record(report))
    if report.interrupted:
        raise typer.Exit(ExitStatus.INTERRUPTED)


def parse_time(text: str, flag: str) -> float:
    """Read seconds, MM:SS or HH:MM:SS, each with decimals.

    Raises:
        UsageError: The text is none of these.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{flag} is '{text}', expected seconds, MM:SS or HH:MM:SS, such as 1:30.5")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def say_video(report: VideoReport, out: Output) -> None:
    """Say what came of a video."""
    for notice in report.notices:
        out.note(notice)
    out.line(
        f"{report.source} -> {report.target}  {report.frames} frames, {report.wall_seconds:.2f} s, "
        f"{report.frames_per_second:.1f} frames/s"
    )
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in report.stage_seconds.items())
    out.detail(f"  work (the stages overlap): {stages}; {report.width} x {report.height}, {report.codec}")


def video_record(report: VideoReport) -> dict[str, Any]:
    """A video's line of --json."""
    return {
        "input": report.source,
        "output": str(report.target),
        "size": [report.width, report.height],
        "frames": report.frames,
        "seconds": round(report.wall_seconds, 3),
        "frames_per_second": round(report.frames_per_second, 2),
        "stage_seconds": {name: round(seconds, 3) for name, seconds in report.stage_seconds.items()},
        "codec": report.codec,
        "damaged": report.damaged,
        "interrupted": report.interrupted,
        "notices": report.notices,
    }


@contextmanager
def _first_interrupt(out: Output) -> Iterator[Callable[[], bool]]:
    """Take the first Ctrl-C as a wish to finish; the second is an interrupt as ever."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before)
        out.note("finishing the video so far; press Ctrl-C again to give it up")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
