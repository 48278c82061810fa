"""Which output each input gets, and every reason to refuse before any work is done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dehaze.errors import UsageError
from dehaze.parts import there

STREAM = "-"
"""Stands for stdin as an input and for stdout as the output."""

_UNSET = "in a script, look for a variable that is not set"


@dataclass(frozen=True)
class Job:
    """One picture to be made.

    Attributes:
        source: The file to read; None for stdin.
        target: The file to write; None for stdout.
        compare: Where the before/after picture goes; None if none is wanted.
    """

    source: Path | None
    target: Path | None
    compare: Path | None = None

    @property
    def source_name(self) -> str:
        """The input, as people and --json read it."""
        return STREAM if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        """The output, as people and --json read it."""
        return STREAM if self.target is None else str(self.target)

    @property
    def outputs(self) -> list[Path]:
        """The files this job writes."""
        return [path for path in (self.target, self.compare) if path is not None]


def refuse_empty(what: str, name: str | None) -> None:
    """Refuse an empty name, which `Path` would take for the current directory.

    Raises:
        UsageError: It is empty.
    """
    if name == "":
        raise UsageError(f"the {what}'s name is empty", _UNSET)


def plan(
    inputs: Sequence[str],
    target: str | None,
    *,
    format: str | None = None,
    compare: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """Give each input its output; refuse whatever would lose a picture.

    Args:
        inputs: Files, or `-` for stdin.
        target: A file, a directory or `-` for stdout; None for `<stem>_dehazed<ext>` beside each input.
        format: Value of --format; None follows the output's name, or the input's where that is not given.
        compare: Whether a before/after picture is written too.
        overwrite: Whether existing outputs may be replaced, an input by its own output included.

    Raises:
        UsageError: A name is empty, two outputs are one file, an output is an input or exists, its directory
            does not, or its name is of a format that we do not write.
    """
    for text in inputs:
        refuse_empty("input", text)
    refuse_empty("output", target)
    if inputs.count(STREAM) > 1:
        raise UsageError("stdin ('-') is given twice: it can be read only once")
    directory = _directory(target, len(inputs))
    jobs = []
    for text in inputs:
        source = None if text == STREAM else Path(text)
        output = _output(source, target, directory, format)
        jobs.append(Job(source, output, _compare(source, output) if compare else None))
    _refuse_collisions(jobs, overwrite)
    if target is not None and directory is None:
        _refuse_missing_directories(jobs)
    return jobs


def _directory(target: str | None, inputs: int) -> Path | None:
    """The directory that outputs go to, if the target is one."""
    if target is None:
        return None
    if target == STREAM:
        if inputs > 1:
            raise UsageError(f"{inputs} inputs cannot all be written to stdout", "use a directory: -o clear/")
        return None
    path = Path(target)
    if path.is_dir() or target.endswith(("/", os.sep)):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{target} is a file, not a directory")
        return path
    if inputs > 1:
        raise UsageError(
            f"{inputs} inputs need a directory to be written to, got '{target}'",
            f"use: -o {path.with_suffix('')}{os.sep}",
        )
    return None


def _output(
    source: Path | None, target: str | None, directory: Path | None, format: str | None
) -> Path | None:
    from dehaze.photo.formats import output_suffix

    if target == STREAM or (target is None and source is None):
        return None
    if directory is not None:
        if source is None:
            raise UsageError(
                "a picture from stdin has no name: give its output one", f"use: -o {directory / 'clear.png'}"
            )
        return directory / (source.stem + output_suffix(format, _suffix(source)))
    if target is not None:
        _refuse_format(Path(target), source, format)
        return Path(target)
    assert source is not None
    # with_name() fails on ".", of which reading says what it is
    return source.parent / f"{source.stem}_dehazed{output_suffix(format, _suffix(source))}"


def is_stream(path: Path) -> bool:
    """Whether it is a pipe or a device, which can be read only once."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _suffix(source: Path) -> str:
    """The end of a picture's name; where that names no format, the one of what the file holds."""
    from dehaze.photo.formats import FORMATS, PHOTO_SUFFIXES, START_BYTES, recognise

    if source.suffix.lower() in PHOTO_SUFFIXES or is_stream(source):
        return source.suffix
    try:
        with source.open("rb") as file:
            found = recognise(file.read(START_BYTES))
    except OSError:  # reading it will say so
        return source.suffix
    return source.suffix if found is None else FORMATS[found].suffixes[0]


def _refuse_format(output: Path, source: Path | None, format: str | None) -> None:
    """Refuse a name of a format that we do not write, or that is not the format asked for."""
    from dehaze.photo.formats import PHOTO_SUFFIXES, output_format, output_suffix

    if format is not None and output.suffix.lower() not in PHOTO_SUFFIXES:
        return
    named = output_format(None, output.suffix, "PNG")
    if format is None or (format == "same" and source is None):
        return
    asked = output_format(None, output_suffix(format, "" if source is None else _suffix(source)), "PNG")
    if asked is not named:
        raise UsageError(
            f"the output {output} is named {named.name}, but --format {format} makes it {asked.name}",
            "leave one of them out",
        )


def _compare(source: Path | None, output: Path | None) -> Path:
    if output is None:
        raise UsageError("--compare writes a second picture, but the output is stdout", "name a file with -o")
    from dehaze.compare import compare_path

    return compare_path(output.stem if source is None else source.stem, output)


def _refuse_collisions(jobs: Iterable[Job], overwrite: bool) -> None:
    sources = {_identity(job.source): job for job in jobs if job.source is not None}
    writers: dict[object, str] = {}
    existing = []
    for job in jobs:
        for path in job.outputs:
            identity = _identity(path)
            if identity in writers:
                raise UsageError(
                    f"{writers[identity]} and {job.source_name} would both be written to {path}",
                    "give them different names, or run them one by one",
                )
            writers[identity] = job.source_name
            reader = sources.get(identity)
            if reader is not None and (reader is not job or path == job.compare):
                raise UsageError(
                    f"the output {path} of {job.source_name} is itself an input of this command",
                    "leave that input out, or write to a directory with -o",
                )
            if reader is not None and not overwrite:
                raise UsageError(
                    f"the output {path} is the input itself", "choose another name, or replace it with -y"
                )
            if there(path):
                if not path.is_file():
                    raise UsageError(
                        f"the output {path} is not a file that can be replaced", "use '-' for stdout"
                    )
                existing.append(path)
            elif _leads_to_itself(path):
                raise UsageError(
                    f"the output {path} is a link that leads to itself",
                    "remove the link, or choose another name",
                )
    if existing and not overwrite:
        several = f"{len(existing)} outputs already exist, {existing[0]} first"
        raise UsageError(
            several if len(existing) > 1 else f"{existing[0]} already exists",
            "replace with -y, or choose another output with -o",
        )


def _refuse_missing_directories(jobs: Iterable[Job]) -> None:
    for job in jobs:
        for path in job.outputs:
            if not path.parent.is_dir():
                raise UsageError(f"cannot write {path}: there is no directory {path.parent}")


def _leads_to_itself(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _identity(path: Path) -> object:
    """What all names of one file share, links included; for a file to be made its full path."""
    try:
        found = path.stat()
    except OSError:
        return os.path.normcase(os.path.realpath(path))  # resolve() fails on links that lead to themselves
    return found.st_dev, found.st_ino
