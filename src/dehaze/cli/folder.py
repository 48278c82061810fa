"""`dehaze folder`: a directory of photos and videos, as often as it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dehaze.cli import options as opt
from dehaze.cli.errors import ExitStatus, Failure, explain, report
from dehaze.cli.loading import check_request, load_dehazer, say_warnings
from dehaze.cli.run import combined_status
from dehaze.cli.targets import refuse_empty
from dehaze.errors import DehazeError, UsageError

if TYPE_CHECKING:
    from dehaze.cli.output import Bar, Output
    from dehaze.folder import Album, FolderSettings, Job, Outcome, Plan

FILES = "Which files"
"""Panel of --help."""

_SUFFIXES_SHOWN = 5


@opt.grouped
def folder(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A directory of photos and videos.", show_default=False)
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            show_default=False,
            help="Where the same tree is made. Without it: <DIR>_dehazed beside DIR.",
        ),
    ] = None,
    recursive: Annotated[
        bool, opt.flag("-r", "--recursive", panel=FILES, help="Directories within, too.")
    ] = False,
    globs: Annotated[
        list[str] | None,
        typer.Option(
            "--glob",
            metavar="PATTERN",
            show_default=False,
            rich_help_panel=FILES,
            help="Only files that fit, such as '*.jpg' or 'day1/*'; may be given several times.",
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            rich_help_panel=FILES,
            help="Every N-th file from the I-th, to share a directory among machines.",
        ),
    ] = "1/1",
    overwrite: Annotated[
        bool, opt.flag("-y", "--overwrite", panel=FILES, help="Do again what is done. Without it: skipped.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            metavar="N",
            min=1,
            show_default=False,
            help="Photos read at once, and as many written. Without it: one for each processor.",
        ),
    ] = None,
    gallery: Annotated[
        bool, opt.flag("--gallery", help="Also write gallery.html, a page of before/after sliders.")
    ] = False,
    compare: opt.CompareOption = False,
    dry_run: opt.DryRunOption = False,
    fail_fast: opt.FailFastOption = False,
    *,
    inference: opt.Inference,
    files: opt.PictureFiles,
    messages: opt.Messages,
) -> None:
    """Clear the haze from every photo and video in a directory.

    dehaze folder ./dashcam                     writes ./dashcam_dehazed
    dehaze folder ./trip -r --gallery           with directories within, and a page to look at
    dehaze folder ./trip -r --glob '*.jpg' -f webp
    dehaze folder ./trip --shard 2/8            the second of eight machines

    What is done already is skipped, so after an interruption the same command goes on. A file that fails
    does not stop the others; if some fail, the exit status is 3.
    """
    out = messages.start()
    refuse_empty("directory", directory)
    refuse_empty("output", target)
    settings, writing = inference.settings(), files.writing()
    from dehaze.folder import FolderSettings, parse_shard, plan_folder

    plan = plan_folder(
        Path(directory),
        None if target is None else Path(target),
        recursive=recursive,
        globs=globs or (),
        shard=parse_shard(shard),
        format=files.format,
        compare=compare,
        overwrite=overwrite,
    )
    _say_plan(plan, out, recursive=recursive, narrowed=bool(globs) or plan.shard[1] > 1)
    if dry_run:
        check_request(inference.model, settings)
        raise typer.Exit(_say_dry_run(plan, writing, out))
    work = FolderSettings(
        strength=inference.strength,
        reading=files.reading(),
        writing=writing,
        threads=threads,
        fail_fast=fail_fast,
    )
    run = _Run(plan, work, out, gallery=gallery, overwrite=overwrite)
    if plan.todo:
        only_photos = all(job.kind == "photo" for job in plan.todo)
        photos = len(plan.todo) if only_photos else None
        run.work(load_dehazer(out, inference.model, settings, photos=photos))
    run.finish()
    raise typer.Exit(run.status)


class _Run:
    """One pass over a directory: what is said while it goes on, and at the end."""

    def __init__(
        self, plan: Plan, settings: FolderSettings, out: Output, *, gallery: bool, overwrite: bool
    ) -> None:
        self._plan, self._settings, self._out, self._overwrite = plan, settings, out, overwrite
        self._album: Album | None = None
        if gallery:
            from dehaze.folder import Album

            self._album = Album(plan)
        self._began = time.perf_counter()
        self._done = 0
        self._failures: list[tuple[str, str]] = []
        self._statuses = [ExitStatus.DONE for job in plan.jobs if job.exists]
        self._failed_targets: set[Path] = set()
        for job in plan.jobs:
            if job.exists:
                out.record({"input": str(job.source), "output": str(job.target), "status": "skipped"})
        for path, error in _unreadable(plan):
            self._fail(path, error)

    @property
    def status(self) -> int:
        """The exit status."""
        return combined_status(self._statuses) if self._statuses else ExitStatus.DONE

    def work(self, dehazer: Any) -> None:
        """Do what is to be done."""
        from dehaze.folder import dehaze_folder
        from dehaze.pipeline import Timings

        out, clock = self._out, Timings()
        say_warnings(out, dehazer)
        total = len(self._plan.todo)
        with out.progress("files", total=total) as bar:
            frames = _Frames(bar)
            outcomes = dehaze_folder(
                self._plan,
                dehazer,
                self._settings,
                frames=frames.show,
                clock=clock,
                **({} if self._album is None else {"look": self._album.look}),
            )
            try:
                with closing(outcomes):
                    for outcome in outcomes:
                        self._take(outcome)
                        bar.advance()
                        bar.update(text=f"files, {self._rate:.1f}/s")
            except BaseException:
                rest = total - self._done - len(self._failures) + len(self._plan.unreadable)
                again = "" if self._overwrite else "; the same command goes on from there"
                out.note(f"stopped with {rest} of {total} files to do{again}")
                raise
        stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in clock.seconds().items())
        say_warnings(out, dehazer)
        if stages:
            out.detail(f"photos, work of all threads (the stages overlap): {stages}")

    def finish(self) -> None:
        """Sum up, and write the gallery."""
        skipped = sum(job.exists for job in self._plan.jobs)
        parts = [f"{self._done} done"]
        if skipped:
            parts.append(f"{skipped} there already")
        if self._failures:
            parts.append(f"{len(self._failures)} failed")
        seconds = time.perf_counter() - self._began
        self._out.line(f"{self._plan.output}: {', '.join(parts)}, {seconds:.1f} s, {self._rate:.1f} files/s")
        for name, message in self._failures:
            self._out.line(f"  failed: {message if name in message else f'{name}: {message}'}")
        if self._album is not None and self._plan.jobs:
            self._write_gallery(self._album)

    @property
    def _rate(self) -> float:
        return (self._done + len(self._failures)) / max(time.perf_counter() - self._began, 1e-9)

    def _take(self, outcome: Outcome) -> None:
        job, out = outcome.job, self._out
        if outcome.error is not None:
            self._failed_targets.add(job.target)
            self._fail(job.source, outcome.error)
            return
        self._done += 1
        self._statuses.append(ExitStatus.DONE)
        for notice in outcome.notices:
            out.note(f"{job.source}: {notice}")
        out.detail(f"{job.source} -> {job.target}  {outcome.seconds:.2f} s")
        out.record(_record(outcome))

    def _fail(self, path: Path, error: Exception) -> None:
        failure = _say_failed(path, error, self._out)
        self._failures.append((str(path), failure.message))
        self._statuses.append(ExitStatus(failure.status))

    def _write_gallery(self, album: Album) -> None:
        out = self._out
        with out.progress("thumbnails") as bar:
            missing = album.complete(
                self._failed_targets, lambda done, total: bar.update(done=done, total=total)
            )
        for path in missing:
            out.warning(f"{path} is not in the gallery: it or its output cannot be read")
        out.line(f"gallery: {album.write()}")


class _Frames:
    """A video's own progress, in the text of the bar of files."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def show(self, job: Job, done: int, total: int | None) -> None:
        """Show how far a video is."""
        self._bar.update(text=f"{job.source.name}, frame {done}{'' if total is None else f' of {total}'}")


def _say_plan(plan: Plan, out: Output, *, recursive: bool, narrowed: bool) -> None:
    if not plan.jobs and not plan.unreadable:
        chosen = " that --glob and --shard choose" if narrowed else ""
        hint = "" if recursive else " (-r looks into directories within)"
        out.warning(f"there is nothing to do in {plan.root}: no photos or videos{chosen}{hint}")
    if plan.ignored:
        common = Counter(plan.ignored).most_common(_SUFFIXES_SHOWN)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in common)
        more = ", ..." if len(plan.ignored) > len(common) else ""
        out.note(f"left alone, as neither photos nor videos: {kinds}{more}")
    if plan.own:
        out.note(f"left alone, as dehaze made them: {plan.own}")
    for path in plan.stale:
        out.note(
            f"{path} is from an earlier run: several files share that name now, "
            "and their answers have names of their own"
        )


def _unreadable(plan: Plan) -> Iterator[tuple[Path, DehazeError]]:
    for path, reason in plan.unreadable:
        error = DehazeError(f"{path} cannot be listed: {reason}", "make it readable, then run this again")
        yield path, error


def _say_failed(path: Path, error: Exception, out: Output) -> Failure:
    failure = explain(error)
    report(error, failure)
    out.record({"input": str(path), "status": "failed", **failure.record()})
    return failure


def _say_dry_run(plan: Plan, writing: Mapping[str, Any], out: Output) -> int:
    """Say what would be done, and what would fail as far as names tell; return the exit status."""
    statuses = [_say_failed(path, error, out).status for path, error in _unreadable(plan)]
    for job in plan.jobs:
        try:
            if job.kind == "photo" and not job.exists:
                opt.check_depth(writing["bit_depth"], writing["format"], job.target.suffix)
        except UsageError as error:
            statuses.append(_say_failed(job.source, error, out).status)
            continue
        statuses.append(ExitStatus.DONE)
        names = " and ".join(map(str, job.missing or job.outputs))
        out.line(f"{'exists' if job.exists else 'would write'}: {names} from {job.source}")
        out.record(
            {
                "input": str(job.source),
                "output": str(job.target),
                "status": "skipped" if job.exists else "planned",
                "dry_run": True,
            }
        )
    return combined_status(statuses) if statuses else ExitStatus.DONE


def _record(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    record: dict[str, Any] = {
        "input": str(job.source),
        "output": str(job.target),
        "status": outcome.status,
        "kind": job.kind,
        "size": [outcome.width, outcome.height],
        "seconds": round(outcome.seconds, 3),
        "notices": outcome.notices,
    }
    if job.compare is not None:
        record["compare"] = str(job.compare)
    if outcome.video is not None:
        record["frames"] = outcome.video.frames
        record["damaged"] = outcome.video.damaged
    return record
