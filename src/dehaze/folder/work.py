"""Doing what a plan says: files are read and written by threads while the network works on another.

What is held in memory at once is bounded in bytes, whatever the number and size of the files.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal
from warnings import catch_warnings

from PIL import Image

from dehaze import photo
from dehaze.compare import compare_photos
from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError
from dehaze.folder.plan import Job, Plan
from dehaze.machine import available_cpus, available_memory
from dehaze.parts import sweep
from dehaze.photo import Photo
from dehaze.pipeline import Timings
from dehaze.video import VideoReport, VideoSettings, dehaze_video

_BYTES_PER_PIXEL = 16
"""A photo on its way, at most: pixels before and after at 16 bits, and the encoder's copies."""

_UNKNOWN_PIXELS = 24_000_000
_MEMORY_SHARE = 4
_MAX_MEMORY = 4 * 1024**3
_PER_THREAD = 4
"""Files that may be under way for each thread."""

_FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(frozen=True)
class FolderSettings:
    """How the files of a directory are read, dehazed and written.

    Attributes:
        strength: 1 for the model's answer, 0 for the input.
        reading: Keyword arguments of `dehaze.photo.read`.
        writing: Keyword arguments of `dehaze.photo.write`.
        video: For the videos.
        threads: That read photos, and as many that write them; None for the number of processors.
        fail_fast: Stop at the first file that fails.
    """

    strength: float = 1.0
    reading: dict[str, Any] = field(default_factory=dict)
    writing: dict[str, Any] = field(default_factory=dict)
    video: VideoSettings = field(default_factory=VideoSettings)
    threads: int | None = None
    fail_fast: bool = False


@dataclass
class Outcome:
    """What came of one file.

    Attributes:
        job: The file.
        status: Whether it was written.
        seconds: From the start of reading to the end of writing, waiting included.
        width: Of the picture, in pixels.
        height: Of the picture.
        notices: What a user should know, a sentence each.
        error: What went wrong, if it failed.
        video: More about a video.
    """

    job: Job
    status: Literal["done", "failed"] = "done"
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    notices: list[str] = field(default_factory=list)
    error: Exception | None = None
    video: VideoReport | None = None


@dataclass
class _Picture:
    """A photo on its way."""

    job: Job
    began: float
    photo: Photo


def dehaze_folder(
    plan: Plan,
    dehazer: Dehazer,
    settings: FolderSettings | None = None,
    *,
    look: Callable[[Job, Photo, Photo], None] = lambda job, before, after: None,
    frames: Callable[[Job, int, int | None], None] = lambda job, done, total: None,
    clock: Timings | None = None,
) -> Generator[Outcome, None, None]:
    """Dehaze what the plan has left to do; one outcome a file, in the plan's order.

    A file that fails does not stop the others, except where nothing more can be written.

    Args:
        plan: From `plan_folder`.
        dehazer: Does the pictures.
        settings: See `FolderSettings`.
        look: Shown each photo before and after, from a thread that writes.
        frames: Told of a video's progress: frames written and expected.
        clock: Takes the seconds of the stages read, network and write.

    Raises:
        DehazeError: The output directory cannot be made or is gone, or its disk is full or read-only.
    """
    settings = settings or FolderSettings()
    clock = clock or Timings()
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DehazeError(f"cannot make the directory {plan.output}: {error.strerror}") from error
    sweep(path for job in plan.jobs for path in job.outputs)
    for kind, jobs in groupby(plan.todo, lambda job: job.kind):
        outcomes: Generator[Outcome, None, None]
        if kind == "photo":
            outcomes = _Photos(plan.output, dehazer, settings, look, clock).run(jobs)
        else:
            outcomes = (_video(job, plan.output, dehazer, settings, frames) for job in jobs)
        with closing(outcomes):  # now: threads that the garbage collector ends may wait for each other
            for outcome in outcomes:
                yield outcome
                if outcome.error is not None:
                    _stop_if_hopeless(outcome.error, plan.output)
                    if settings.fail_fast:
                        return


class _Photos:
    """Photos through three stages: reading threads, the network in the caller's, writing threads."""

    def __init__(
        self,
        root: Path,
        dehazer: Dehazer,
        settings: FolderSettings,
        look: Callable[[Job, Photo, Photo], None],
        clock: Timings,
    ) -> None:
        self._root, self._dehazer, self._settings = root, dehazer, settings
        self._look, self._clock = look, clock
        self._threads = settings.threads or available_cpus()
        self._memory = min(available_memory() // _MEMORY_SHARE, _MAX_MEMORY)

    def run(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Do the jobs; outcomes in their order."""
        readers = ThreadPoolExecutor(self._threads, "read")
        writers = ThreadPoolExecutor(self._threads, "write")
        try:
            yield from self._run(jobs, readers, writers)
        finally:
            # What is being written is finished; what waits is dropped.
            for pool in (readers, writers):
                pool.shutdown(cancel_futures=True)

    def _run(
        self, jobs: Iterable[Job], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor
    ) -> Iterator[Outcome]:
        reading: deque[tuple[Job, int, Future[_Picture]]] = deque()
        writing: deque[tuple[int, Future[Outcome]]] = deque()
        todo = ((job, _cost(job.source)) for job in jobs)
        waiting = next(todo, None)
        used = 0
        while waiting is not None or reading or writing:
            while waiting is not None and self._has_room(used, waiting[1], len(reading) + len(writing)):
                job, cost = waiting
                reading.append((job, cost, readers.submit(self._read, job)))
                used += cost
                waiting = next(todo, None)
            if reading:
                job, cost, picture = reading.popleft()
                writing.append((cost, self._continue(job, picture, writers)))
            while writing and (writing[0][1].done() or not reading):
                cost, future = writing.popleft()
                used -= cost
                yield future.result()

    def _has_room(self, used: int, more: int, files: int) -> bool:
        """Whether another file may be read; a single one always may."""
        return files == 0 or (files < self._threads * _PER_THREAD and used + more <= self._memory)

    def _continue(self, job: Job, picture: Future[_Picture], writers: ThreadPoolExecutor) -> Future[Outcome]:
        """Run the network on what was read, and hand it on."""
        try:
            before = picture.result()
            with self._clock.measure("network"):
                clear = self._dehazer(
                    before.photo.pixels, strength=self._settings.strength, colour=before.photo.colour
                )
            return writers.submit(self._write, before, replace(before.photo, pixels=clear))
        except Exception as error:
            failed: Future[Outcome] = Future()
            failed.set_result(Outcome(job, "failed", error=error))
            return failed

    def _read(self, job: Job) -> _Picture:
        began = time.perf_counter()
        with self._clock.measure("read"):
            return _Picture(job, began, photo.read(job.source, **self._settings.reading))

    def _write(self, picture: _Picture, after: Photo) -> Outcome:
        job, writing = picture.job, self._settings.writing
        height, width = after.pixels.shape[:2]
        outcome = Outcome(job, width=width, height=height, notices=after.notices)
        try:
            with self._clock.measure("write"):
                _make_parent(job.target, self._root)
                if job.compare in job.missing:
                    both = compare_photos(picture.photo, after)
                    photo.write(both, job.compare, **{**writing, "metadata": "strip"})
                if job.target in job.missing:
                    photo.write(after, job.target, **writing)
                self._look(job, picture.photo, after)
        except Exception as error:
            outcome.status, outcome.error = "failed", error
        outcome.seconds = time.perf_counter() - picture.began
        return outcome


def _video(
    job: Job,
    root: Path,
    dehazer: Dehazer,
    settings: FolderSettings,
    frames: Callable[[Job, int, int | None], None],
) -> Outcome:
    began = time.perf_counter()
    outcome = Outcome(job)
    try:
        _make_parent(job.target, root)
        report = dehaze_video(
            str(job.source),
            job.target,
            dehazer,
            replace(settings.video, strength=settings.strength),
            overwrite=True,
            progress=lambda done, total: frames(job, done, total),
        )
        outcome.video, outcome.notices = report, report.notices
        outcome.width, outcome.height = report.width, report.height
    except Exception as error:
        outcome.status, outcome.error = "failed", error
    outcome.seconds = time.perf_counter() - began
    return outcome


def _cost(path: Path) -> int:
    """Bytes that a photo needs on its way, from its header alone."""
    pixels = _UNKNOWN_PIXELS
    with suppress(Exception), catch_warnings(action="ignore"), Image.open(path) as image:
        pixels = image.width * image.height
    return pixels * _BYTES_PER_PIXEL


def _make_parent(target: Path, root: Path) -> None:
    """Make the directories between the root and the target, but not the root: it may have been unmounted."""
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the output directory is gone", str(root))
    target.parent.mkdir(parents=True, exist_ok=True)


def _stop_if_hopeless(error: BaseException, root: Path) -> None:
    """Raise if no further file can be written either."""
    again = "run the same command again to do the rest"
    if not root.is_dir():
        raise DehazeError(f"the output directory {root} is gone", again) from error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FATAL:
            raise DehazeError(f"nothing more can be written to {root}: {cause.strerror}", again) from error
        cause = cause.__cause__
