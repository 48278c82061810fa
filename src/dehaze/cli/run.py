"""`dehaze run`: hazy photos in, clear photos out."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from dehaze.cli import options as opt
from dehaze.cli import output
from dehaze.cli.errors import ExitStatus, explain, report
from dehaze.cli.loading import check_request, load_dehazer, say_warnings
from dehaze.cli.options import check_depth
from dehaze.cli.targets import Job, is_stream, plan
from dehaze.errors import PhotoError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dehaze.cli.output import Output
    from dehaze.dehazer import Dehazer
    from dehaze.photo import Photo

STDIN, STDOUT = "stdin", "stdout"
"""What people read for the streams that commands call `-`."""


@opt.grouped
def run(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Photos, or - for stdin.", show_default=False)
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            show_default=False,
            help="A file, a directory/ or - for stdout. Without it: <stem>_dehazed<ext> beside each input.",
        ),
    ] = None,
    overwrite: opt.OverwriteOption = False,
    compare: opt.CompareOption = False,
    dry_run: opt.DryRunOption = False,
    fail_fast: opt.FailFastOption = False,
    *,
    inference: opt.Inference,
    files: opt.PictureFiles,
    messages: opt.Messages,
) -> None:
    """Clear the haze from photos.

    dehaze run foggy.jpg                       writes foggy_dehazed.jpg
    dehaze run foggy.jpg -o clear.jpg
    dehaze run *.jpg -o clear/ --compare       with before/after pictures
    dehaze run scan.tif --strength 0.7 -f png
    cat foggy.jpg | dehaze run - > clear.jpg
    """
    out = messages.start()
    settings, photos = inference.settings(), Files(files.reading(), files.writing())
    jobs = plan(inputs, target, format=files.format, compare=compare, overwrite=overwrite)
    _refuse_mixed_stdout(jobs, messages.as_json)
    if dry_run:
        check_request(inference.model, settings)
        raise typer.Exit(run_all(jobs, lambda job: _say_planned(job, photos, out), out, fail_fast=fail_fast))
    dehazer = load_dehazer(out, inference.model, settings, photos=len(jobs))

    def work(job: Job) -> None:
        record = clear(job, dehazer, photos, inference.strength)
        say_warnings(out, dehazer)
        _say_done(job, record, out)

    raise typer.Exit(run_all(jobs, work, out, fail_fast=fail_fast))


@dataclass(frozen=True)
class Files:
    """How pictures are read and written: keyword arguments of `photo.read` and `photo.write`."""

    reading: dict[str, Any]
    writing: dict[str, Any]

    def check(self, job: Job) -> None:
        """Refuse what reading and writing would, as far as names and a file's first bytes tell.

        Raises:
            PhotoError: The input cannot be read, or is no picture.
            UsageError: The output does not hold as many bits as are asked for.
        """
        from dehaze.photo.formats import RAW_SUFFIXES, START_BYTES, recognise

        found: str | None = "PNG"
        if job.source is not None and not is_stream(job.source):
            try:
                with job.source.open("rb") as file:
                    found = recognise(file.read(START_BYTES))
            except FileNotFoundError as error:
                raise PhotoError(f"there is no file {job.source}") from error
            except OSError as error:
                raise PhotoError(f"{job.source} cannot be read: {error.strerror}") from error
            if found == "TIFF" and job.source.suffix.lower() in RAW_SUFFIXES:
                found = None
        if found is None:
            raise PhotoError(f"{job.source} is not a picture that dehaze can read")
        suffix = None if job.target is None else job.target.suffix
        check_depth(self.writing["bit_depth"], self._format(job.target), suffix, found)

    def read(self, source: Path | None) -> Photo:
        """Read a file, or stdin."""
        from dehaze import photo

        return photo.read(io.BytesIO(_stdin()) if source is None else source, **self.reading)

    def write(self, picture: Photo, target: Path | None, **changes: Any) -> None:
        """Write a file, making its directory; or stdout, in one piece."""
        settings = {**self.writing, **changes, "format": self._format(target)}
        from dehaze import photo

        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            photo.write(picture, target, **settings)
            return
        buffer = io.BytesIO()
        photo.write(picture, buffer, **settings)
        output.current().binary(buffer.getbuffer())

    def _format(self, target: Path | None) -> str | None:
        """What to write: where --format does not say it the name does; a nameless one, as it was read."""
        from dehaze.photo import PHOTO_SUFFIXES

        named = target is not None and target.suffix.lower() in PHOTO_SUFFIXES
        asked: str | None = self.writing["format"]
        return asked if asked is not None or named else "same"


def clear(job: Job, dehazer: Dehazer, files: Files, strength: float) -> dict[str, Any]:
    """Do one job; return what --json says of it."""
    start = time.perf_counter()
    files.check(job)
    before = files.read(job.source)
    pixels = dehazer(before.pixels, strength=strength, colour=before.colour)
    after = replace(before, pixels=pixels)
    files.write(after, job.target)
    if job.compare is not None:
        from dehaze.compare import compare_photos

        files.write(compare_photos(before, after), job.compare, metadata="strip")
    height, width = pixels.shape[:2]
    working = dehazer.working_shape(height, width)
    return {
        "input": job.source_name,
        "output": job.target_name,
        **({} if job.compare is None else {"compare": str(job.compare)}),
        "size": [width, height],
        "working_size": [working[1], working[0]],
        "seconds": round(time.perf_counter() - start, 3),
        "model": dehazer.info.name,
        "device": str(dehazer.info.device),
        "precision": str(dehazer.info.precision),
        "notices": before.notices,
    }


def run_all(jobs: Sequence[Job], work: Callable[[Job], None], out: Output, *, fail_fast: bool) -> int:
    """Do every job, saying why not where it fails; return the exit status.

    One that fails does not stop the others unless `fail_fast`.
    """
    statuses = []
    with out.progress("photos", total=len(jobs)) as bar:
        for job in jobs:
            try:
                work(job)
                statuses.append(int(ExitStatus.DONE))
            except (BrokenPipeError, output.StdoutError):
                raise
            except Exception as error:
                failure = explain(error)
                report(error, failure)
                out.record({"input": job.source_name, **failure.record()})
                statuses.append(failure.status)
            bar.advance()
            if fail_fast and statuses[-1]:
                break
    failed = len([status for status in statuses if status])
    if failed and len(jobs) > 1:
        out.error(f"{failed} of {len(jobs)} inputs failed" + ("; stopped there" if fail_fast else ""))
    return combined_status(statuses)


def combined_status(statuses: Sequence[int]) -> int:
    """One exit status for several inputs: 3 if some failed; all failing alike, their own; else 1."""
    if ExitStatus.DONE in statuses:
        return ExitStatus.SOME_FAILED if any(statuses) else ExitStatus.DONE
    return statuses[0] if len(set(statuses)) == 1 else ExitStatus.FAILED


def _say_planned(job: Job, files: Files, out: Output) -> None:
    files.check(job)
    out.line(f"would write {' and '.join(map(str, job.outputs)) or STDOUT} from {job.source or STDIN}")
    out.record({"input": job.source_name, "output": job.target_name, "dry_run": True})


def _say_done(job: Job, record: dict[str, Any], out: Output) -> None:
    for notice in record["notices"]:
        out.note(f"{job.source or STDIN}: {notice}")
    out.line(f"{job.source or STDIN} -> {job.target or STDOUT}  {record['seconds']:.2f} s")
    out.detail(
        f"  {' x '.join(map(str, record['size']))} pixels, the network looked at "
        f"{' x '.join(map(str, record['working_size']))}; {record['model']} on {record['device']}, "
        f"{record['precision']}"
    )
    out.record(record)


def _refuse_mixed_stdout(jobs: Sequence[Job], as_json: bool) -> None:
    if all(job.target is not None for job in jobs):
        return
    if as_json:
        raise UsageError("--json and the picture cannot both go to stdout", "name a file with -o")
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError(
            "a picture cannot go to stdout here: it is a terminal, or closed",
            "name a file with -o, or add: > clear.jpg",
        )


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no picture on stdin", "use: dehaze run - < foggy.jpg > clear.jpg")
    stream: BinaryIO = sys.stdin.buffer
    return stream.read()
