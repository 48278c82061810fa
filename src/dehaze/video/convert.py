"""One video from file to file, its stages overlapped: decode, network, transfer, encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

import av

from dehaze.errors import UsageError, VideoError
from dehaze.parts import real_target
from dehaze.pipeline import Pipeline, Timings
from dehaze.upsample import LocalAffine, apply
from dehaze.video.colour import Decoder, Pixels, bits
from dehaze.video.sink import Sink, check_output
from dehaze.video.source import DEFAULT_RATE, Look, Parcel, Source, is_live, is_pattern, sequence_files
from dehaze.video.steady import DEFAULT_SECONDS, Steadier
from dehaze.working_copy import shrink

_MISSING_SECONDS = 0.5
"""Containers round the length that they announce; what falls short by more is told."""


class FrameDehazer(Protocol):
    """What is needed of a `dehaze.dehazer.Dehazer`."""

    def __call__(self, pixels: Any, /, *, strength: float = 1.0) -> Any:
        """Dehaze (H, W, 3) pixels."""

    def estimate(self, pixels: Any, /) -> LocalAffine:
        """Fit the local affine map that dehazes (H, W, 3) pixels."""

    def working_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what the network looks at."""


@dataclass(frozen=True)
class VideoSettings:
    """How a video is to be dehazed and written.

    Attributes:
        strength: 1 for the model's answer, 0 for the input.
        smooth: Time constant in seconds over which the haze is steadied; 0 for each frame by itself.
        start: Seconds from the beginning to leave out.
        duration: Seconds to keep; None for all.
        frame_rate: Of an image sequence, in frames a second.
        codec: Encoder; None for H.264, or what the container prefers where it cannot hold that.
        crf: Constant quality, lower is better, in the encoder's own scale; None for a good one.
        audio: ``copy`` or ``none``.
    """

    strength: float = 1.0
    smooth: float = DEFAULT_SECONDS
    start: float = 0.0
    duration: float | None = None
    frame_rate: float = DEFAULT_RATE
    codec: str | None = None
    crf: int | None = None
    audio: str = "copy"

    def __post_init__(self) -> None:
        for name in ("smooth", "start"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"--{name} is {getattr(self, name):g} seconds, expected 0 or more")
        if self.duration is not None and not self.duration > 0:
            raise UsageError(f"--duration is {self.duration:g} seconds, expected more than 0")
        if not 0 < self.frame_rate <= 1000:
            raise UsageError(f"the frame rate is {self.frame_rate:g}, expected more than 0 and at most 1000")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength is {self.strength:g}, expected a number from 0 to 1")
        if self.audio not in ("copy", "none"):
            raise UsageError(f"--audio is '{self.audio}', expected copy or none")


@dataclass
class VideoReport:
    """What came of a video.

    Attributes:
        source: As it was named.
        target: The file that was written.
        frames: Written.
        width: Of the frames as coded, in pixels.
        height: Of the frames as coded.
        codec: The encoder.
        wall_seconds: From opening to the finished file.
        stage_seconds: Work by stage: decode, network, transfer, encode. They overlap.
        damaged: Packets and frames that were damaged in the source.
        interrupted: The work was stopped before the end.
        notices: What could not be kept, a sentence each.
    """

    source: str
    target: Path
    frames: int = 0
    width: int = 0
    height: int = 0
    codec: str = ""
    wall_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    damaged: int = 0
    interrupted: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def frames_per_second(self) -> float:
        """Frames for each second of waiting."""
        return self.frames / self.wall_seconds if self.wall_seconds else 0.0


@dataclass
class _Work:
    """A frame on its way: its parcel and what the stages made of it."""

    parcel: Parcel
    pixels: Pixels | None = None
    affine: LocalAffine | None = None


def dehaze_video(
    source: str,
    target: Path,
    dehazer: FrameDehazer,
    settings: VideoSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> VideoReport:
    """Dehaze a video.

    Times, further streams, chapters, metadata, rotation, aspect ratio, colour tags and bit depth are kept as
    far as container and codec allow; the report's notices say what is not. Damaged packets are passed over
    and counted.

    Args:
        source: A file, a pattern of numbered pictures such as ``frames_%04d.png``, a URL or a camera.
        target: A file or a pattern. A file appears when it is whole.
        dehazer: Does the frames.
        settings: See `VideoSettings`.
        overwrite: Replace the target if it exists.
        progress: Told after each frame how many are written and how many are expected, if known.
        stop: Polled; once true, what is done so far is finished and kept: at the target if it is a pattern,
            or for a stream or a camera, which has no end of its own; else at ``<stem>.partial<suffix>``
            beside it.

    Raises:
        UsageError: The request does not make sense, or the target exists; nothing is written.
        VideoError: The source cannot be read or the target not written; no part of a file is left, but whole
            pictures of a sequence stay.
    """
    settings = settings or VideoSettings()
    check_target(source, target, overwrite=overwrite)
    target = _writable(target)
    report = VideoReport(source, target)
    began = time.perf_counter()
    clock = Timings()
    with _open(source, settings) as opened:
        with clock.measure("decode"):
            first, parcels = _first_frame(opened)
        look = Look.of(first)
        report.width, report.height = look.width, look.height
        sink = Sink(
            target,
            opened,
            look,
            codec=settings.codec,
            crf=settings.crf,
            audio=settings.audio,
            notice=report.notices.append,
        )
        report.codec = sink.codec_name
        try:
            stages = _Stages(look, opened, dehazer, settings, clock)
            with Pipeline(stop=stop) as line:
                works = line.ahead(stages.decode(parcels))
                works = line.ahead(map(stages.network, works))
                works = line.ahead(map(stages.transfer, works))
                for report.frames in _encode(works, sink, clock):
                    progress(report.frames, opened.expected_frames)
            report.interrupted = stop()
            if report.frames == 0:
                raise VideoError(f"{source} was interrupted before its first frame: nothing is written")
            with clock.measure("encode"):
                report.target = sink.finish(_partial(report, target))
        except BaseException:
            sink.abandon()
            raise
        _tell_damage(opened, report)
        if stages.resized:
            size = f"{look.width} x {look.height}"
            report.notices.append(
                f"frames of another size than the first, brought to {size}: {stages.resized}"
            )
    report.stage_seconds = clock.seconds()
    report.wall_seconds = time.perf_counter() - began
    return report


def middle(name: str) -> float:
    """Seconds from the beginning of a video to its middle; 0 if its length is unknown.

    Raises:
        VideoError: The video cannot be read.
    """
    with Source(name) as source:
        return (source.seconds or 0) / 2


def still(name: str, moment: float | None = None) -> Pixels:
    """One upright frame of a video, (H, W, 3) uint8.

    Args:
        name: As for `dehaze_video`.
        moment: Seconds from the beginning; None for the middle of what the video announces.

    Raises:
        UsageError: The moment lies beyond the end.
        VideoError: The video cannot be read.
    """
    with Source(name, start=middle(name) if moment is None else moment) as source:
        frame, _ = _first_frame(source)
        look = Look.of(frame)
        pixels = Decoder(look.width, look.height, look.colour, deep=False)(frame)
        return look.orientation.upright(pixels)


def check_video(source: str, target: Path, settings: VideoSettings, *, overwrite: bool) -> None:
    """Refuse what `dehaze_video` refuses before it writes; a stream or a camera is not opened.

    The arguments are those of `dehaze_video`.

    Raises:
        UsageError: As for `dehaze_video`.
        VideoError: The source has no frame that can be decoded, or the target is write-protected.
    """
    check_target(source, target, overwrite=overwrite)
    if not is_live(source):
        with _open(source, settings) as opened:
            _first_frame(opened)
    check_output(target, codec=settings.codec, crf=settings.crf)


def check_target(source: str, target: Path, *, overwrite: bool) -> None:
    """Refuse a target before any work is done.

    Raises:
        UsageError: It exists, is the source itself or a directory, or there is no directory to put it in.
        VideoError: It is write-protected.
    """
    if not target.parent.is_dir():
        raise UsageError(f"cannot write {target}: there is no directory {target.parent}")
    if target.is_dir():
        raise UsageError(f"the output {target} is a directory", f"use: -o {target / 'clear.mp4'}")
    if is_pattern(str(target)):
        existing = list(sequence_files(target).values())
        if existing and is_pattern(source) and Path(source).resolve() == target.resolve():
            raise UsageError(f"the output {target} is the input itself", "choose another name")
    else:
        existing = [target] if target.exists() else []
    if not existing or overwrite:
        for path in existing or [target]:
            _writable(path)
        return
    files = not is_live(source) and not is_pattern(source) and not is_pattern(str(target))
    if files and Path(source).exists() and target.samefile(source):
        raise UsageError(
            f"the output {target} is the input itself", "choose another name, or replace it with -y"
        )
    raise UsageError(f"{existing[0]} already exists", "replace it with -y, or choose another name with -o")


def _writable(target: Path) -> Path:
    """The file that is to be written: a link stays, and what it leads to is replaced."""
    try:
        return real_target(target)
    except OSError as error:
        raise VideoError(f"cannot write {target}: {error.strerror}") from error


def _open(source: str, settings: VideoSettings) -> Source:
    return Source(source, start=settings.start, duration=settings.duration, frame_rate=settings.frame_rate)


def _first_frame(source: Source) -> tuple[av.VideoFrame, Iterator[Parcel]]:
    """The first frame, and all parcels from the beginning."""
    parcels = source.parcels()
    held = []
    for parcel in parcels:
        held.append(parcel)
        if parcel.frame is not None:
            return parcel.frame, chain(held, parcels)
    raise source.no_frame()


class _Stages:
    """What happens to each frame on its way.

    Attributes:
        resized: Frames so far that were of another size than the first.
    """

    def __init__(
        self, look: Look, source: Source, dehazer: FrameDehazer, settings: VideoSettings, clock: Timings
    ) -> None:
        self._orientation = look.orientation
        self._time_base = source.time_base
        self._dehazer = dehazer
        self._strength = settings.strength
        # A frame no larger than the working copy can have the network's own answer.
        own = dehazer.working_shape(look.height, look.width) == (look.height, look.width)
        self._directly = own and settings.smooth == 0
        self._steadier = Steadier(settings.smooth)
        self._to_rgb = Decoder(look.width, look.height, look.colour, deep=bits(look.pix_fmt) > 8)
        self._clock = clock
        self._size = look.width, look.height
        self.resized = 0

    def decode(self, parcels: Iterable[Parcel]) -> Iterator[_Work]:
        """Read and convert to RGB."""
        for parcel in self._clock.timed("decode", parcels):
            work = _Work(parcel)
            if parcel.frame is not None:
                with self._clock.measure("decode"):
                    work.pixels = self._to_rgb(parcel.frame)
                self.resized += (parcel.frame.width, parcel.frame.height) != self._size
                parcel.frame = None
            yield work

    def network(self, work: _Work) -> _Work:
        """Ask the network how to clear the frame, and steady its answer."""
        if work.pixels is None or self._strength == 0:
            return work
        with self._clock.measure("network"):
            upright = self._orientation.upright(work.pixels)
            if self._directly:
                clear = self._dehazer(upright, strength=self._strength)
                work.pixels = self._orientation.as_coded(clear)
                return work
            affine = self._dehazer.estimate(upright)
            guide = shrink(upright, *affine.gain.shape[:2])
            affine = self._steadier(affine, guide, float(work.parcel.pts * self._time_base))
            turn = self._orientation.as_coded
            work.affine = LocalAffine(turn(affine.gain), turn(affine.offset))
        return work

    def transfer(self, work: _Work) -> _Work:
        """Clear the frame at full resolution."""
        if work.pixels is not None and work.affine is not None:
            with self._clock.measure("transfer"):
                work.pixels = apply(work.pixels, work.affine, strength=self._strength)
        return work


def _encode(works: Iterable[_Work], sink: Sink, clock: Timings) -> Iterator[int]:
    """Write everything; yields the number of frames after each."""
    count = 0
    for work in works:
        with clock.measure("encode"):
            for packet in work.parcel.packets:
                sink.copy(packet)
            if work.pixels is None:
                continue
            sink.write(work.pixels, work.parcel)
        count += 1
        yield count


def _partial(report: VideoReport, target: Path) -> Path:
    """Where a video goes that was stopped before its end."""
    if not report.interrupted or is_live(report.source) or is_pattern(str(target)):
        return target
    names = (f"{target.stem}.partial{n}{target.suffix}" for n in chain([""], map("-{}".format, count(2))))
    return next(path for path in map(target.with_name, names) if not path.exists())


def _tell_damage(source: Source, report: VideoReport) -> None:
    report.damaged = source.damaged
    if not report.interrupted and source.missing_seconds > _MISSING_SECONDS:
        report.notices.append(
            f"{source.name} ends {source.missing_seconds:.1f} s before the end it announces: "
            "it may be cut short"
        )
    if source.damaged:
        what = "packet or frame" if source.damaged == 1 else "packets or frames"
        report.notices.append(f"{source.damaged} damaged {what} in {source.name}")
    if source.mended:
        report.notices.append(f"{source.mended} frames had no time of their own, or one out of order")
