"""What is to be done with a directory: which files, and where the answers go."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from dehaze.compare import compare_path
from dehaze.errors import DehazeError, UsageError
from dehaze.parts import check_folder, there
from dehaze.photo import PHOTO_SUFFIXES, output_suffix
from dehaze.video import VIDEO_SUFFIXES

Kind = Literal["photo", "video"]

_JUNK_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_JUNK_DIRECTORIES = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_KEPT_CONTAINERS = frozenset({".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts"})
"""Video suffixes that the output keeps; others become .mp4."""

_OWN = "_dehazed"
_PARTIAL = re.compile(r"\.partial(-\d+)?$")
_OWN_ENDINGS = (_OWN, "_compare")


@dataclass(frozen=True)
class Job:
    """One file to be made.

    Attributes:
        source: What is read.
        target: What is written.
        kind: Photo or video.
        compare: Where a before/after picture goes; None for none.
        kept: Those of its outputs that are there already and stay.
    """

    source: Path
    target: Path
    kind: Kind
    compare: Path | None = None
    kept: tuple[Path, ...] = ()

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What there is when it is done."""
        return (self.target,) if self.compare is None else (self.target, self.compare)

    @property
    def missing(self) -> tuple[Path, ...]:
        """The outputs it writes."""
        return tuple(path for path in self.outputs if path not in self.kept)

    @property
    def exists(self) -> bool:
        """Whether all is there already."""
        return not self.missing


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        root: The directory that is read.
        output: The directory that is written.
        shard: Which part of the files this is, (i, n).
        jobs: In the order of their names; those of the shard only.
        ignored: How many files are left alone because nobody can read them, by suffix.
        own: How many files and directories are passed over because this tool made them.
        stale: What an earlier run wrote under a name that several sources share by now: nobody's output.
        unreadable: Directories that could not be listed, with the reason.
    """

    root: Path
    output: Path
    shard: tuple[int, int] = (1, 1)
    jobs: list[Job] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    own: int = 0
    stale: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def todo(self) -> list[Job]:
        """Jobs whose outputs are not all there."""
        return [job for job in self.jobs if not job.exists]


def plan_folder(
    root: Path,
    output: Path | None = None,
    *,
    recursive: bool = False,
    globs: Sequence[str] = (),
    shard: tuple[int, int] = (1, 1),
    format: str | None = None,
    compare: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Find a directory's photos and videos and give each its output; nothing is written.

    Hidden files, operating systems' litter and everything that this tool made are passed over. An output has
    its source's stem; sources of one directory whose outputs would be one file have their suffixes in the
    names, too, whatever globs and shard choose of them.

    Args:
        root: The directory.
        output: Where the same tree is made; None for `<root>_dehazed` beside it.
        recursive: Look into directories within, too.
        globs: If any, only files one of these fits, whatever the case: on the path from the root if it holds
            a slash, else on the name.
        shard: ``(i, n)`` for every n-th file, from the i-th (counted from 1).
        format: Of the photos, see `dehaze.photo.output_suffix`.
        compare: Also make before/after pictures of photos.
        overwrite: Do again what is done.

    Raises:
        DehazeError: There is no such directory.
        UsageError: It is a file, output and root are one, two files would get one output, or an output is one
            of the originals.
    """
    if not root.exists():
        raise DehazeError(f"there is no directory {root}")
    if not root.is_dir():
        raise UsageError(f"{root} is a file, expected a directory", f"use: dehaze run {root}")
    if output is None:
        named = root if root.name not in ("", "..") else root.resolve()
        if not named.name:
            raise UsageError(f"there is no place beside {root} for the output", "name a directory with -o")
        output = named.with_name(named.name + _OWN)
    _check_output(root, output)
    plan = Plan(root, output, shard)
    found = sorted(_walk(plan, recursive, globs), key=lambda path: path.relative_to(root).as_posix())
    everything = _jobs(found, plan, format, compare=compare)
    jobs = [job for job in everything if _fits(job.source.relative_to(root).as_posix(), globs)]
    _refuse_collisions(jobs, everything)
    index, count = shard
    share = jobs[index - 1 :: count]
    _refuse_originals(share, everything)
    for job in share:
        # A comparison without its answer is what an interrupted run left: both are made again.
        keeps = not overwrite and there(job.target)
        kept = tuple(path for path in job.outputs if there(path)) if keeps else ()
        plan.jobs.append(replace(job, kept=kept))
    return plan


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``I/N``.

    Raises:
        UsageError: Not of that form, or I is not one of 1..N.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard is '{text}', expected I/N with I from 1 to N, such as 1/4")
    return int(index), int(count)


def _check_output(root: Path, output: Path) -> None:
    check_folder(output)
    if os.path.realpath(output) == os.path.realpath(root):
        raise UsageError(f"the output {output} is the input itself", "choose another directory with -o")


def _refuse_originals(jobs: Sequence[Job], everything: Sequence[Job]) -> None:
    """Refuse outputs that are originals, by whatever name: a link, another directory's or another case."""
    outputs = [(path, job, found) for job in jobs for path in job.outputs if (found := _identity(path))]
    originals = {_identity(job.source): job.source for job in everything} if outputs else {}
    for path, job, found in outputs:
        if found in originals:
            raise UsageError(
                f"the output {path} of {job.source} and the original {originals[found]} are one file",
                "choose another directory with -o",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """What all names of one file share, links included; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _walk(plan: Plan, recursive: bool, globs: Sequence[str]) -> Iterator[Path]:
    """Every photo and video, and of the others the count of those that fit.

    Links to directories are followed, but none is entered twice.
    """
    own = os.path.realpath(plan.output)
    seen: set[tuple[int, int]] = set()
    waiting, links = [plan.root], list[Path]()
    while waiting or links:
        # Links last: what they lead to is then known by its own name, if it lies within.
        directory = waiting.pop() if waiting else links.pop()
        try:
            status = directory.stat()
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            plan.unreadable.append((directory, error.strerror or str(error)))
            continue
        if (status.st_dev, status.st_ino) in seen or os.path.realpath(directory) == own:
            continue
        seen.add((status.st_dev, status.st_ino))
        names = {entry.name for entry in entries}
        stems = {Path(name).stem for name in names}
        for entry in entries:
            path = directory / entry.name
            if _is_litter(entry):
                continue
            if _is_directory(entry):
                if not recursive:
                    continue
                if entry.name.endswith(_OWN) and entry.name.removesuffix(_OWN) in names:
                    plan.own += 1
                else:
                    (links if entry.is_symlink() else waiting).append(path)
                continue
            readable = _is_readable(entry)
            if readable and not _is_ours(path.stem, stems):
                yield path
            elif _fits(path.relative_to(plan.root).as_posix(), globs):
                plan.own += readable
                plan.ignored.update([] if readable else [path.suffix.lower() or "no suffix"])


def _is_litter(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    return _is_hidden(entry) or name in _JUNK_FILES or name in _JUNK_DIRECTORIES


def _is_readable(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a photo or a video by its name."""
    suffix = Path(entry.name).suffix.lower()
    try:
        special = not entry.is_file() and entry.stat() is not None  # pipes, sockets and devices
    except OSError:
        special = False  # a broken link: reading it will say so
    return not special and (suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES)


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return True
    if os.name != "nt":
        return False
    attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_ours(stem: str, stems: set[str]) -> bool:
    """Whether a file is what `dehaze` makes beside another that is there."""
    stem = _PARTIAL.sub("", stem)
    return any(stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in _OWN_ENDINGS)


def _fits(path: str, globs: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return not globs or any(
        fnmatchcase((path if "/" in glob else name).lower(), glob.lower()) for glob in globs
    )


def _jobs(sources: Sequence[Path], plan: Plan, format: str | None, *, compare: bool) -> list[Job]:
    jobs = [_job(path, plan, format) for path in sources]
    _separate(jobs, plan)
    return [_with_compare(job) for job in jobs] if compare else jobs


def _job(source: Path, plan: Plan, format: str | None) -> Job:
    place = plan.output / source.relative_to(plan.root)
    if source.suffix.lower() in PHOTO_SUFFIXES:
        return Job(source, place.with_suffix(output_suffix(format, source.suffix)), "photo")
    suffix = source.suffix if source.suffix.lower() in _KEPT_CONTAINERS else ".mp4"
    return Job(source, place.with_suffix(suffix), "video")


def _separate(jobs: list[Job], plan: Plan) -> None:
    """Name the sources' suffixes in outputs that would otherwise be one file: a.jpg as png beside a.png.

    Not even the source that has the suffix already keeps the short name: if the other was there before it,
    a file of that name is the other's.
    """
    for path, same in _by_output(jobs).items():
        if len(same) == 1:
            continue
        for i in same:
            source = jobs[i].source
            name = f"{source.stem}_{source.suffix.lstrip('.')}{path.suffix}"
            jobs[i] = replace(jobs[i], target=path.with_name(name))
        if there(path):
            plan.stale.append(path)


def _with_compare(job: Job) -> Job:
    if job.kind == "video":
        return job
    return replace(job, compare=compare_path(job.target.stem, job.target))


def _refuse_collisions(jobs: Sequence[Job], everything: Sequence[Job]) -> None:
    writers = _by_output(everything)
    for path in _by_output(jobs):
        if len(writers[path]) > 1:
            names = " and ".join(str(everything[i].source) for i in writers[path])
            raise UsageError(f"{names} would both be written to {path}", "rename one of them")


def _by_output(jobs: Sequence[Job]) -> dict[Path, list[int]]:
    found: defaultdict[Path, list[int]] = defaultdict(list)
    for i, job in enumerate(jobs):
        for path in job.outputs:
            found[path].append(i)
    return found
