"""Reading a video: which stream, which frames, when; what is damaged is counted and passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream

from dehaze.errors import DehazeError, UsageError, VideoError
from dehaze.video.colour import Colour

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *(
            "3g2",
            "3gp",
            "asf",
            "avi",
            "divx",
            "dv",
            "f4v",
            "flv",
            "m2t",
            "m2ts",
            "m2v",
            "m4v",
            "mjpeg",
            "mjpg",
        ),
        *(
            "mkv",
            "mov",
            "mp4",
            "mpeg",
            "mpg",
            "mts",
            "mxf",
            "ogv",
            "qt",
            "rm",
            "rmvb",
            "ts",
            "vob",
            "webm",
            "wmv",
        ),
    )
)
"""Suffixes that a folder's files are taken for videos by."""

DEFAULT_RATE = 25.0
"""Frames a second of an image sequence if nobody says otherwise."""

Array = npt.NDArray[Any]

_PICTURES = frozenset(
    {".bmp", ".dpx", ".exr", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_PATTERN = re.compile(r"%0?\d*d")
_URL = re.compile(
    r"[a-z][a-z0-9+.-]+://|(async|cache|concat|concatf|crypto|data|fd|file|pipe|unix):", re.IGNORECASE
)
"""Behind a colon alone, only FFmpeg's protocols that are named without slashes; the rest is a file's name."""

_OPEN_SECONDS, _READ_SECONDS = 10, 30
_MAX_READ_ERRORS = 20
"""Errors in a row after which the rest of a file is given up."""

_MAX_PACKETS = 256
"""Copied packets that may gather before they are passed on without a frame."""

_MILLISECOND = Fraction(1, 1000)
_MAX_RATE = 1000
"""Frames a second beyond which a rate is none: FFmpeg gives DV the ticks of its clock."""

_SEEK_BY_TIME = frozenset({"mpegts", "mpeg"})
"""Formats without an index: FFmpeg goes to a time in them, wherever the key frames are."""

_COUNT_FROM_ZERO = frozenset({"matroska", "nut"})
"""Formats whose duration has in it what lies before the first frame."""


def is_pattern(name: str) -> bool:
    """Whether a name stands for numbered pictures, such as ``frames_%04d.png``."""
    path = Path(name)
    return path.suffix.lower() in _PICTURES and _PATTERN.search(path.name) is not None


def is_live(name: str) -> bool:
    """Whether a name is a URL or a camera rather than a file."""
    return _is_url(name) or name.startswith("/dev/video")


def ffmpeg_name(path: str) -> str:
    """A local path as FFmpeg takes it: what looks like a protocol is none, and a pattern has one number."""
    if is_pattern(path):
        before, number, after = _around_number(Path(path))
        name = f"{before.replace('%', '%%')}{number}{after.replace('%', '%%')}"
        path = str(Path(str(Path(path).parent).replace("%", "%%"), name))
    return f"file:{path}" if ":" in path else path


def numbered(pattern: Path, number: int) -> Path:
    """The picture of a number; all of a pattern but its number stands for itself."""
    before, form, after = _around_number(pattern)
    return pattern.with_name(f"{before}{form % number}{after}")


def _around_number(pattern: Path) -> tuple[str, str, str]:
    found = _PATTERN.search(pattern.name)
    assert found is not None
    return pattern.name[: found.start()], found[0], pattern.name[found.end() :]


def is_cover(stream: Stream) -> bool:
    """Whether a stream is one picture that stands for the file, such as a cover."""
    kind = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    return kind == Disposition.attached_pic


@dataclass
class Parcel:
    """One decoded frame and the packets of other streams that lie before it in the file.

    Attributes:
        packets: To be copied.
        frame: None if there are packets only.
        pts: When to show the frame, in the source's time base.
        duration: How long, in the same unit; 0 if unknown.
    """

    packets: list[av.Packet[Any]] = field(default_factory=list)
    frame: av.VideoFrame | None = None
    pts: int = 0
    duration: int = 0


@dataclass(frozen=True)
class Orientation:
    """How coded frames lie against the upright picture: mirrored, turned or both, in steps of 90 degrees.

    Attributes:
        transposed: Rows are columns.
        flip_x: Left and right change places, after that.
        flip_y: Top and bottom change places, after that.
    """

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, matrix: Sequence[int]) -> Orientation:
        """Read FFmpeg's display matrix: x' = a x + c y, y' = b x + d y with rows (a, b, _), (c, d, _)."""
        a, b, _, c, d = matrix[:5]
        if abs(b) > abs(a):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def upright(self, array: Array) -> Array:
        """Turn a coded (H, W, ...) array upright; contiguous."""
        turned = array.swapaxes(0, 1) if self.transposed else array
        return np.ascontiguousarray(turned[self._flips])

    def as_coded(self, array: Array) -> Array:
        """Turn an upright (H, W, ...) array back; contiguous."""
        turned = array[self._flips]
        return np.ascontiguousarray(turned.swapaxes(0, 1) if self.transposed else turned)

    @property
    def _flips(self) -> tuple[slice, slice]:
        return slice(None, None, -1 if self.flip_y else 1), slice(None, None, -1 if self.flip_x else 1)


@dataclass(frozen=True)
class Look:
    """What every frame of a video has in common, taken from its first.

    Attributes:
        width: As coded, in pixels.
        height: As coded.
        pix_fmt: FFmpeg's name of the pixel format.
        colour: What the numbers mean.
        matrix: The nine integers of the display matrix; empty if the frames are shown as they are coded.
        interlaced: The lines of two moments alternate.
    """

    width: int
    height: int
    pix_fmt: str
    colour: Colour
    matrix: tuple[int, ...] = ()
    interlaced: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Look:
        """Take down what a decoded frame says."""
        side_data: Mapping[Any, Any] = frame.side_data
        found = side_data.get(SideDataType.DISPLAYMATRIX)
        matrix = () if found is None else tuple(np.frombuffer(bytes(found), np.int32).tolist())
        colour = Colour.of(frame)
        return cls(frame.width, frame.height, frame.format.name, colour, matrix, frame.interlaced_frame)

    @property
    def orientation(self) -> Orientation:
        """How frames are turned to be shown."""
        return Orientation.of(self.matrix) if self.matrix else Orientation()


class Source:
    """A video that has been opened; use it in a ``with`` statement.

    Args:
        name: A file, a pattern of numbered pictures, a URL or a camera.
        start: Seconds from the beginning to leave out.
        duration: Seconds to read; None for all.
        frame_rate: Of an image sequence, in frames a second.

    Attributes:
        container: PyAV's.
        stream: The video stream that is dehazed.
        others: All further streams.
        covers: The files of attached pictures by number of stream, once frames are read.
        damaged: Packets that could not be read or decoded, and frames that were decoded with errors.
        mended: Frames whose time was missing or not after the one before.

    Raises:
        UsageError: A directory, an incomplete image sequence, or a start beyond the end.
        VideoError: Not there, not readable, empty, or without a video stream.
    """

    def __init__(
        self,
        name: str,
        *,
        start: float = 0,
        duration: float | None = None,
        frame_rate: float = DEFAULT_RATE,
    ) -> None:
        self.name = name
        self.container = _open(name, frame_rate)
        self.damaged = 0
        self.mended = 0
        self.covers: dict[int, bytes] = {}
        self._last: int | None = None
        self._reached = 0.0
        try:
            self.stream = _video_stream(self.container, name)
            self.others = [other for other in self.container.streams if other.index != self.stream.index]
            self.stream.thread_type = "AUTO"
            assert self.stream.time_base is not None
            self.time_base = self.stream.time_base
            self._place(start, duration)
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    @property
    def is_live(self) -> bool:
        """Whether this is a stream or a camera."""
        return is_live(self.name)

    @property
    def first_number(self) -> int:
        """Number of the first picture of an image sequence; 1 for anything else."""
        return _first_number(Path(self.name)) if is_pattern(self.name) else 1

    @property
    def seconds(self) -> float | None:
        """Length of what will be read; None if the container does not say."""
        if self._length is None:
            return None
        left = self._length - self._start
        return left if self._duration is None else min(left, self._duration)

    @property
    def missing_seconds(self) -> float:
        """How much a file that was read to its end falls short of what it announces; 0 if unknown."""
        if self.is_live or self._duration is not None or self._length is None:
            return 0.0
        return max(0.0, float(self._origin) + self._length - self._reached)

    @property
    def rate(self) -> Fraction:
        """Frames a second, as far as known."""
        rates = self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate
        return next((rate for rate in rates if rate and rate <= _MAX_RATE), Fraction(DEFAULT_RATE))

    @property
    def expected_frames(self) -> int | None:
        """How many frames there will probably be; None if unknown."""
        if self.stream.frames and not self._start and self._duration is None:
            return self.stream.frames
        return None if self.seconds is None else max(1, round(self.seconds * self.rate))

    @property
    def offset(self) -> Fraction:
        """Seconds that are taken off every time, so that a part begins at zero."""
        return self._begin if self._start else Fraction(0)

    @property
    def until(self) -> Fraction | None:
        """Where the wanted part ends in times less `offset`; None if everything to the end is wanted."""
        return None if self._end is None else self._end - self.offset

    @property
    def _origin(self) -> Fraction:
        """When the first stream begins."""
        return Fraction(self.container.start_time or 0, av.time_base)

    @property
    def _length(self) -> float | None:
        """Seconds from there to the end that the container announces; None if it announces none."""
        if not self.container.duration:
            return None
        length = self.container.duration / av.time_base
        if _form(self.container) in _COUNT_FROM_ZERO:
            length -= float(self._origin)
        return length if length > 0 else None

    @property
    def _shift(self) -> int:
        return round(self.offset / self.time_base)

    def parcels(self) -> Iterator[Parcel]:
        """Decode from start to end, the decoder flushed; times as the source has them, less `offset`.

        Where no frame begins between start and end, the one that is still shown then is given.
        """
        parcel = Parcel()
        shown: Parcel | None = None
        seen = False
        for packet in self._packets():
            if packet is not None and packet.stream_index != self.stream.index:
                parcel.packets.append(packet)
                if len(parcel.packets) >= _MAX_PACKETS:
                    yield parcel
                    parcel = Parcel()
                continue
            for frame in self._decode(packet):
                pts, duration = self._time(frame)
                timed = replace(parcel, frame=frame, pts=pts - self._shift, duration=duration)
                if self._within(pts * self.time_base):
                    yield timed
                    parcel, seen = Parcel(), True
                elif pts * self.time_base <= self._begin and self._length is not None:
                    late = max(-timed.pts, 0)  # the start lies before the known end
                    shown = replace(timed, pts=timed.pts + late, duration=max(duration - late, 0))
        if shown is not None and not seen:
            yield replace(shown, packets=parcel.packets)
        elif parcel.packets:
            yield parcel

    def no_frame(self) -> DehazeError:
        """Say why `parcels` gave no frame."""
        if self._last is not None or (self._start and not self.damaged):
            part = f"at {self._start:g} s or after it"
            if self._duration is not None:
                part = f"from {self._start:g} s to {self._start + self._duration:g} s"
            return UsageError(f"{self.name} has no frame {part}", "choose another --start or --duration")
        if self.damaged:
            return VideoError(
                f"no frame of {self.name} can be decoded: all of it is damaged, or of a kind that FFmpeg "
                "cannot decode",
                "if it plays elsewhere, convert it to another kind of video first",
            )
        return VideoError(f"no frame of {self.name} can be decoded: it is empty")

    def _place(self, start: float, duration: float | None) -> None:
        """Go to the last key frame before the start."""
        self._start, self._duration = start, duration
        self._begin = self._origin + _exact(start)
        self._end = None if duration is None else self._begin + _exact(duration)
        if start and self._length is not None and start >= self._length:
            raise UsageError(
                f"--start {start:g} s is beyond the end of {self.name}, which has {self._length:.2f} s"
            )
        if start and _form(self.container) not in _SEEK_BY_TIME:
            # If that is not possible, everything is decoded and what lies before the start is dropped.
            with suppress(av.FFmpegError):
                self.container.seek(int(self._begin * av.time_base), backward=True)

    def _packets(self) -> Iterator[av.Packet[Any] | None]:
        """Packets within the wanted time, and None at the end."""
        for packet in self._demux():
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.size == 0 and stamp is None:
                continue
            if is_cover(packet.stream):
                self.covers[packet.stream_index] = bytes(packet)
                continue
            is_video = packet.stream_index == self.stream.index
            if is_video and self._is_past(packet):
                break
            if is_video or (stamp is not None and self._within(stamp * packet.time_base)):
                yield packet
        yield None

    def _is_past(self, packet: av.Packet[Any]) -> bool:
        """Whether nothing that is wanted can follow: streams lie within a second of each other in a file."""
        if self._end is None or packet.dts is None:
            return False
        return packet.dts * packet.time_base > self._end + 1

    def _demux(self) -> Iterator[av.Packet[Any]]:
        errors = 0
        while errors <= _MAX_READ_ERRORS:
            try:
                for packet in self.container.demux():
                    errors = 0
                    if packet.pts is not None and packet.time_base is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        self._reached = max(self._reached, end)
                    yield packet
                return
            except av.error.EOFError:
                return
            except av.FFmpegError:
                errors += 1
                self.damaged += errors == 1

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            frames = self.stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            self.damaged += 1
            return []
        self.damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def _time(self, frame: av.VideoFrame) -> tuple[int, int]:
        """When to show a frame and how long."""
        duration = frame.duration or round(1 / (self.rate * self.time_base))
        pts = frame.pts if frame.pts is not None else frame.dts
        last = self._last
        if pts is None:
            pts = 0 if last is None else last + duration
            self.mended += 1
        elif last is not None and pts <= last:
            pts = last + 1
            self.mended += 1
        self._last = pts
        return pts, duration

    def _within(self, seconds: Fraction) -> bool:
        begin_ok = not self._start or seconds >= self._begin - _MILLISECOND
        return begin_ok and (self._end is None or seconds < self._end - _MILLISECOND)


def _form(container: InputContainer) -> str:
    """FFmpeg's name of the format, the first of several such as matroska,webm."""
    return container.format.name.split(",")[0]


def _exact(seconds: float) -> Fraction:
    return Fraction(seconds).limit_denominator(1_000_000)


def check_source(name: str) -> None:
    """Refuse a source that cannot be opened, before any work is done.

    Raises:
        UsageError: A directory, a photo, or a pattern that FFmpeg does not understand.
        VideoError: No such file, an empty file, or numbered pictures of which one is missing.
    """
    if is_live(name):
        return
    if is_pattern(name):
        _first_number(Path(name))
        return
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{name} is a directory, expected a video", f"use: dehaze folder {name}")
    if not path.exists():
        raise VideoError(f"there is no file {name}")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{name} is empty: it has no bytes")
    if path.is_file() and path.suffix.lower() in _PICTURES:
        raise UsageError(
            f"{name} is a photo, expected a video",
            f"use: dehaze run {name}, or for all of a numbered row a pattern such as frames_%04d.png",
        )


def _open(name: str, frame_rate: float) -> InputContainer:
    check_source(name)
    if is_live(name):
        return _open_live(name)
    if is_pattern(name):
        options = {"framerate": str(frame_rate), "start_number": str(_first_number(Path(name)))}
        return _try_open(name, url=ffmpeg_name(name), format="image2", options=options)
    return _try_open(name, url=ffmpeg_name(name))


def _open_live(name: str) -> InputContainer:
    if name.startswith("/dev/video"):
        return _try_open(name, format="v4l2")
    return _try_open(name, timeout=(_OPEN_SECONDS, _READ_SECONDS))


def _try_open(name: str, *, url: str | None = None, **arguments: object) -> InputContainer:
    try:
        # Undecodable bytes in metadata must not end the work.
        return av.open(url or name, mode="r", metadata_errors="replace", **arguments)  # type: ignore[call-overload,no-any-return]
    except av.FFmpegError as error:
        raise VideoError(f"{name} cannot be opened as a video: {error.strerror}") from error
    except OSError as error:
        raise VideoError(f"{name} cannot be read: {error.strerror}") from error


def _video_stream(container: InputContainer, name: str) -> av.VideoStream:
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    if best in moving:
        return best
    if moving:
        return moving[0]
    kinds = ", ".join(sorted({stream.type for stream in container.streams}))
    raise VideoError(f"{name} has no video stream, only {kinds or 'nothing'}")


def sequence_files(pattern: Path) -> dict[int, Path]:
    """The numbered pictures that a pattern stands for, by number."""
    before, _, after = _around_number(pattern)
    match = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    if not pattern.parent.is_dir():
        return {}
    numbers = ((match.fullmatch(path.name), path) for path in pattern.parent.iterdir())
    found = {int(m[1]): path for m, path in numbers if m is not None}
    return {n: path for n, path in sorted(found.items()) if numbered(pattern, n) == path}


def check_pattern(pattern: Path) -> None:
    """Refuse a pattern of several numbers."""
    if len(_PATTERN.findall(pattern.name)) != 1:
        raise UsageError(f"{pattern} must have exactly one number such as %04d")


def _first_number(pattern: Path) -> int:
    """Where an image sequence starts; a gap is refused, for FFmpeg would stop there without a word."""
    check_pattern(pattern)
    numbers = list(sequence_files(pattern))
    if not numbers:
        raise VideoError(f"no picture is named like {pattern}")
    for expected, number in enumerate(numbers, numbers[0]):
        if number != expected:
            missing = numbered(pattern, expected)
            raise VideoError(f"{missing.name} is missing from the image sequence {pattern}")
    return numbers[0]


def _is_url(name: str) -> bool:
    return _URL.match(name) is not None and not Path(name).exists()
