"""The gallery of a directory: what was made now, and what was there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dehaze import photo
from dehaze.errors import DehazeError
from dehaze.folder.plan import Job, Plan
from dehaze.gallery import Gallery, Pair, make_pair
from dehaze.photo import Photo
from dehaze.video import middle, still


class Album:
    """Collects thumbnails while a directory is done, and fetches the others from the files.

    Args:
        plan: What is done.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._gallery = Gallery(len(plan.jobs))
        self._indices = {job.target: index for index, job in enumerate(plan.jobs)}

    def look(self, job: Job, before: Photo, after: Photo) -> None:
        """Take a photo that was just made."""
        index = self._indices[job.target]
        if self._gallery.wants(index):
            self._gallery.add(index, _photo_pair(self._title(job), before, after))

    def complete(self, failed: set[Path], progress: Callable[[int, int], None]) -> list[Path]:
        """Fetch from the files what `look` was not shown.

        Args:
            failed: Targets there is nothing of.
            progress: Told how many are fetched, and of how many.

        Returns:
            Sources that could not be shown, because they or their outputs cannot be read any more.
        """
        todo = [
            (index, job)
            for index, job in enumerate(self._plan.jobs)
            if self._gallery.wants(index) and index not in self._gallery and job.target not in failed
        ]
        missing = []
        for count, (index, job) in enumerate(todo, 1):
            try:
                self._gallery.add(index, self._fetch(job))
            except (DehazeError, OSError):
                missing.append(job.source)
            progress(count, len(todo))
        return missing

    def write(self) -> Path:
        """Write the page into the output directory.

        Raises:
            DehazeError: It cannot be written.
        """
        plan = self._plan
        path = gallery_path(plan)
        shown, total = len(self._gallery), len(plan.jobs)
        title = f"{plan.root.resolve().name}: before and after"
        try:
            self._gallery.write(path, title, f"{shown} of {total} shown")
        except OSError as error:
            raise DehazeError(f"{path} cannot be written: {error.strerror or error}") from error
        return path

    def _title(self, job: Job) -> str:
        return job.source.relative_to(self._plan.root).as_posix()

    def _fetch(self, job: Job) -> Pair:
        if job.kind == "photo":
            return _photo_pair(self._title(job), photo.read(job.source), photo.read(job.target))
        moment = middle(str(job.target))  # The output is whole; its source may announce more than it has.
        return make_pair(self._title(job), still(str(job.source), moment), still(str(job.target), moment))


def gallery_path(plan: Plan) -> Path:
    """Where the page of a plan goes: one for each shard, as each knows only its own files."""
    index, count = plan.shard
    return plan.output / ("gallery.html" if count == 1 else f"gallery-{index}-of-{count}.html")


def _photo_pair(title: str, before: Photo, after: Photo) -> Pair:
    colour = before.colour
    return make_pair(title, before.pixels, after.pixels, to_srgb=None if colour is None else colour.to_srgb)
