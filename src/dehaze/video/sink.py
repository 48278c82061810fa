"""Writing a video: the encoder, the copied streams, and a file that is there whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from stat import S_IMODE
from typing import Any

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags, ThreadType
from av.container import OutputContainer
from av.stream import Discard, Stream

from dehaze.errors import UsageError, VideoError
from dehaze.machine import available_cpus
from dehaze.parts import part_path, put_in_place, sweep
from dehaze.video.colour import Encoder as ToFrame
from dehaze.video.colour import Pixels, bits, has_alpha, output_colour, output_format
from dehaze.video.source import (
    Look,
    Parcel,
    Source,
    check_pattern,
    ffmpeg_name,
    is_cover,
    is_live,
    is_pattern,
    numbered,
    sequence_files,
)

DEFAULT_CODEC = "libx264"
DEFAULT_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libvpx": 8, "libsvtav1": 26}
"""Hardly visible losses; other encoders keep their own default."""

_DEFAULT_CQ = 20
_DEFAULT_QSCALE = 2
_MAX_QSCALE = 31
_MAX_CRF = {"h264": 51, "hevc": 51}
"""For encoders to which FFmpeg passes on any number."""

ALIASES = {
    "h264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}
"""Short names of --codec for the encoder that is used for it."""

_WITHOUT_TIMES = frozenset({"avi", "image2"})
"""Formats that store a frame rate instead of a time for each frame."""

_MOV = frozenset({"mp4", "mov", "3gp", "3g2", "ipod", "f4v"})
_WITH_CHAPTERS = _MOV | {"matroska", "webm"}
_STATES_ASPECT = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
"""Codecs that store the shape of a pixel themselves; PyAV cannot tell it to a container."""

_WITH_ROTATION = _MOV | {"matroska"}
"""Formats that can say how the frames are to be turned."""

_PICTURE_CODECS = {
    ".jpg": "mjpeg",
    ".jpeg": "mjpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
}
_PICTURE_KINDS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""Name and media type of an attached cover by its codec."""

_TIMECODE = re.compile(r"\d+:\d+:\d+(\D)\d+")
_MAX_TIMECODE_RATE = 255
_PLACE_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOENT})
"""What the place of a file fails of, and no encoder."""

_MPEG4_MAX_TICKS = 65535
_MIN_TIMESCALE, _MAX_TIMESCALE = 10_000, 1_000_000
_QSCALE_CODECS = frozenset({"mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "msmpeg4v3", "flv1", "h263"})

_SPEED = {
    "libvpx-vp9": {"b": "0", "cpu-used": "2", "row-mt": "1"},
    "libvpx": {"b": "20M", "cpu-used": "4"},
}

_QUIET = {"libx265": {"x265-params": "log-level=error"}}
"""Encoders that write to the terminal by themselves; SVT-AV1 takes it from the environment (`SVT_LOG`)."""

_STALE_TAGS = frozenset(
    (
        *(
            "encoder",
            "duration",
            "major_brand",
            "minor_version",
            "compatible_brands",
            "bps",
            "number_of_frames",
        ),
        *("number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc", "_statistics_tags"),
    )
)
"""Metadata that describes the file it stood in, not what it shows."""


def default_target(name: str) -> Path:
    """`<stem>_dehazed.mp4` beside the source.

    Raises:
        UsageError: The source is a URL or a camera, beside which nothing can be written.
    """
    if is_live(name):
        raise UsageError(f"{name} is a stream: say where the video goes", "use: -o camera.mp4")
    path = Path(name)
    stem = path.stem.split("%")[0].rstrip("_-. ") if is_pattern(name) else path.stem
    return path.with_name(f"{stem or 'frames'}_dehazed.mp4")


def check_output(target: Path, *, codec: str | None, crf: int | None) -> None:
    """Refuse what `Sink` refuses whatever the video; nothing is written.

    Raises:
        UsageError: As for `Sink`.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    with closing(_open(target, part_path(target, keep_suffix=True), {})) as container:
        _quality(_find_encoder(container, codec, target, lambda _: None), crf)


class Sink:
    """A video being written. Nothing stands at the target before `finish`, except for image sequences.

    Args:
        target: The file, or a pattern of numbered pictures.
        source: Where the frames come from; its other streams, chapters and metadata are taken over.
        look: Of the source's frames.
        codec: Name of an encoder or a short name for one; None for H.264 or what the container prefers.
        crf: Quality, lower is better, in the encoder's own scale; None for a good one.
        audio: ``copy`` or ``none``.
        notice: Told in a sentence what cannot be kept.

    Attributes:
        codec_name: The encoder.

    Raises:
        UsageError: The container or the codec is unknown, or they do not go together.
        VideoError: The encoder refuses the video, or the target cannot be written.
    """

    def __init__(
        self,
        target: Path,
        source: Source,
        look: Look,
        *,
        codec: str | None,
        crf: int | None,
        audio: str,
        notice: Callable[[str], None],
    ) -> None:
        self._target, self._source, self._look, self._notice = target, source, look, notice
        os.environ.setdefault("SVT_LOG", "1")  # errors alone
        self._is_sequence = is_pattern(str(target))
        self._part = target if self._is_sequence else part_path(target, keep_suffix=True)
        self._last_dts: dict[int, int] = {}
        self._last_pts: int | None = None
        self._number = source.first_number
        sweep([target])
        if self._is_sequence:
            options = {"atomic_writing": "1", "start_number": str(self._number)}
        else:
            # MP4 keeps the beginning of each stream in this unit, by default whole milliseconds.
            options = {"movie_timescale": str(_timescale(source.time_base))}
        self._container = _open(target, self._part, options)
        try:
            self._encoder = _find_encoder(self._container, codec, target, notice)
            self.codec_name = self._encoder.name
            self._stream = self._add_video(crf)
            self._copies = self._add_copies(audio)
            self._take_over_metadata()
            with self._writing(f"cannot write {target}"):
                if target.exists() and not self._is_sequence:
                    self._part.touch(S_IMODE(target.stat().st_mode))  # a private file is one while it grows
            self._write_header()
        except BaseException:
            self.abandon()
            raise

    def write(self, pixels: Pixels, parcel: Parcel) -> None:
        """Encode a frame's dehazed pixels (H, W, 3), as coded, at the parcel's time."""
        if self._turns:
            pixels = self._look.orientation.upright(pixels)
        frame = self._to_frame(pixels)
        frame.time_base = self._time_base
        frame.pts = self._tick(parcel.pts * self._source.time_base)
        frame.duration = round(parcel.duration * self._source.time_base / self._time_base)
        with self._writing(f"cannot write {self._target}"):
            self._mux(self._stream.encode(frame))

    def copy(self, packet: av.Packet[Any]) -> None:
        """Copy a packet of another stream if it is kept, its times less the source's offset."""
        stream = self._copies.get(packet.stream_index)
        if stream is None:
            return
        shift = round(self._source.offset / packet.time_base)
        dts = packet.dts if packet.dts is not None else packet.pts
        assert dts is not None
        dts = max(dts - shift, self._last_dts.get(stream.index, dts - shift - 1) + 1)
        self._last_dts[stream.index] = dts
        packet.pts = dts if packet.pts is None else max(packet.pts - shift, dts)
        packet.dts = dts
        packet.stream = stream
        with self._writing(f"cannot write {self._target}"):
            self._container.mux(packet)

    def finish(self, target: Path | None = None) -> Path:
        """Flush the encoder and put the file in its place.

        Args:
            target: Another place than the one asked for, in the same directory.
        """
        place = self._target if target is None else target
        try:
            with self._writing(f"cannot write {place}"):
                self._mux(self._stream.encode(None))
                self._container.close()
                if not self._is_sequence:
                    put_in_place(self._part, place)
        except BaseException:
            self.abandon()
            raise
        return place

    def abandon(self) -> None:
        """Leave no file behind; whole pictures of a sequence stay."""
        with suppress(av.FFmpegError, OSError):  # The file is about to go.
            self._container.close()
        halves = sequence_files(_half(self._target)).values() if self._is_sequence else [self._part]
        for half in halves:
            half.unlink(missing_ok=True)

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        """Write encoded frames; a picture that replaces another has its permissions while it grows."""
        for packet in packets:
            if self._is_sequence:
                old = numbered(self._target, self._number)
                if old.exists():
                    half = _half(old)
                    half.touch(0o600)
                    shutil.copymode(old, half)
                self._number += 1
            self._container.mux(packet)

    def _add_video(self, crf: int | None) -> av.VideoStream:
        source, look, name = self._source, self._look, self._encoder.name
        self._turns = bool(look.matrix) and self._container.format.name not in _WITH_ROTATION
        size = look.width, look.height
        aspect = source.stream.sample_aspect_ratio or Fraction(1)
        if self._turns and look.orientation.transposed:
            size, aspect = size[::-1], 1 / (aspect or Fraction(1))
        pix_fmt = output_format(self._encoder, look.pix_fmt, *size)
        self._time_base = self._choose_time_base()
        options = _quality(self._encoder, crf)
        stream: Any = self._container.add_stream(
            name,
            rate=source.rate,
            options=options,
            time_base=self._time_base,
            width=size[0],
            height=size[1],
        )
        context = stream.codec_context
        context.pix_fmt = pix_fmt
        context.sample_aspect_ratio = aspect
        context.flags |= Flags.frame_duration
        if self._container.format.name in _WITHOUT_TIMES:
            context.max_b_frames = 0  # Frames must be stored in the order they are shown.
        context.thread_count = available_cpus()
        # Slices would cost H.264 quality.
        context.thread_type = ThreadType.FRAME if name == "libx264" else ThreadType.AUTO
        if self._encoder.canonical_name == "hevc" and self._container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # What Apple's players ask for.
        self._tag_colour(context, pix_fmt)
        if look.matrix and not self._turns:
            stream.set_display_matrix(look.matrix)
        self._say_what_changes(pix_fmt, aspect)
        return stream  # type: ignore[no-any-return]

    def _tag_colour(self, context: Any, pix_fmt: str) -> None:
        look = self._look
        colour = output_colour(look.colour, look.pix_fmt, self._encoder, look.width, look.height)
        if not av.VideoFormat(pix_fmt).is_rgb:
            context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        self._to_frame = ToFrame(colour, pix_fmt, deep=bits(look.pix_fmt) > 8)

    def _say_what_changes(self, pix_fmt: str, aspect: Fraction) -> None:
        look, name = self._look, self._encoder.name
        if bits(pix_fmt) < bits(look.pix_fmt):
            self._notice(f"{name} has no {bits(look.pix_fmt)} bits a channel: {bits(pix_fmt)} are kept")
        if has_alpha(look.pix_fmt) and not av.VideoFormat(look.pix_fmt).has_palette:
            self._notice("transparency is not kept")
        if (look.width % 2 or look.height % 2) and "444" in pix_fmt and "444" not in look.pix_fmt:
            self._notice(
                f"{look.width} x {look.height} is odd, which {name} encodes only with full chroma "
                f"({pix_fmt}); some players cannot show that"
            )
        if look.interlaced:
            self._notice("interlaced frames are dehazed and encoded whole, as progressive ones")
        if look.colour.is_hdr:
            self._notice("the model was made for standard dynamic range; this video is HDR (tags are kept)")
        stated = self._encoder.canonical_name in _STATES_ASPECT or self._container.format.name in _MOV
        if aspect != 1 and not stated:
            self._notice(f"the pixels' aspect ratio of {aspect} is not kept by {name} in this container")
        if self._turns:
            form = self._container.format.name
            self._notice(f"{form} cannot store a rotation: the frames are turned upright")

    def _choose_time_base(self) -> Fraction:
        rate, time_base = self._source.rate, self._source.time_base
        if self._container.format.name in _WITHOUT_TIMES:
            return 1 / rate
        if self._encoder.canonical_name == "mpeg4" and time_base.denominator > _MPEG4_MAX_TICKS:
            whole = 1 / rate
            return whole if whole.denominator <= _MPEG4_MAX_TICKS else Fraction(1, 1000)
        return time_base

    def _tick(self, seconds: Fraction) -> int:
        """A time in the encoder's unit, after the one before."""
        pts = round(seconds / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _add_copies(self, audio: str) -> dict[int, Stream]:
        copies: dict[int, Stream] = {}
        for stream in self._source.others:
            if stream.type == "audio" and audio == "none":
                continue
            if self._can_hold(stream):
                copies[stream.index] = self._add_copy(stream)
            elif not (self._attach(stream) or self._is_made_anew(stream)):
                form = self._container.format.name
                self._notice(f"{form} cannot hold {describe(stream)}: left out")
        return copies

    def _add_copy(self, stream: Stream) -> Stream:
        copy: Any = self._container.add_stream_from_template(stream, opaque=True)
        copy.disposition = stream.disposition
        copy.metadata.update(self._tags(stream.metadata))
        return copy  # type: ignore[no-any-return]

    def _attach(self, stream: Stream) -> bool:
        """Keep a cover as the attached file that it is in Matroska; False if that cannot be."""
        data = self._source.covers.get(stream.index)
        kind = _PICTURE_KINDS.get(stream.codec_context.name if stream.codec_context is not None else "")
        if self._container.format.name != "matroska" or data is None or kind is None:
            return False
        name = stream.metadata.get("filename", kind[0])
        self._container.add_attachment(name, stream.metadata.get("mimetype", kind[1]), data)
        return True

    def _is_made_anew(self, stream: Stream) -> bool:
        """Whether FFmpeg writes what is in a stream by itself: the titles of chapters, or a timecode."""
        if stream.type != "data":
            return False
        form, source = self._container.format.name, self._source
        if stream.discard == Discard.all and source.container.chapters():
            return form in _WITH_CHAPTERS
        return form in _MOV and "timecode" in stream.metadata and self._timecode is not None

    def _can_hold(self, stream: Stream) -> bool:
        """Try the stream's header in a container of the same format in memory."""
        form = self._container.format.name
        if self._is_sequence or stream.discard == Discard.all:
            return False
        if stream.type == "data" and form in _MOV:
            return False  # Its header is written, but not its end.
        if is_cover(stream) and (form != "mp4" or stream.index not in self._source.covers):
            return False
        try:
            with av.open(io.BytesIO(), "w", format=form) as trial:
                trial.add_stream_from_template(stream, opaque=True)
                trial.start_encoding()
        except (ValueError, av.FFmpegError, OSError):
            return False
        return True

    def _take_over_metadata(self) -> None:
        source = self._source.container
        self._container.metadata.update(self._tags(source.metadata))
        self._stream.metadata.update(self._tags(self._source.stream.metadata))
        if self._container.format.name in _MOV and self._timecode is not None:
            self._take_over_timecode(self._timecode)
        stream: Any = self._stream
        stream.disposition = self._source.stream.disposition
        chapters = _shifted(source.chapters(), self._source.offset, self._source.until)
        if chapters:
            self._container.set_chapters(chapters)

    def _tags(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """What is taken over of a file's or a stream's tags. In MP4, a timecode makes a track of its own."""
        ours = _fresh(metadata)
        if self._container.format.name in _MOV:
            ours = {key: value for key, value in ours.items() if key.lower() != "timecode"}
        return ours

    @property
    def _timecode(self) -> str | None:
        """The source's timecode, such as 01:00:00:00."""
        tags = self._source.stream.metadata | self._source.container.metadata
        return next((value for key, value in tags.items() if key.lower() == "timecode"), None)

    def _take_over_timecode(self, code: str) -> None:
        """Give it to the encoded stream alone: FFmpeg makes a track of it, for which it needs a rate."""
        rate, match = round(self._source.rate), _TIMECODE.fullmatch(code)
        drops_frames = match is not None and match[1] != ":"
        if match is None or rate > _MAX_TIMECODE_RATE or (drops_frames and rate % 30):
            form = self._container.format.name
            self._notice(f"{form} cannot hold the timecode {code} at {rate} frames a second: left out")
            return
        self._stream.metadata["timecode"] = code

    def _write_header(self) -> None:
        """Let FFmpeg open the encoder and the file, in one step that does not say which of them fails."""
        try:
            self._container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            what = f"{self.codec_name} cannot encode this video"
            with self._writing(f"cannot write {self._target}" if error.errno in _PLACE_ERRORS else what):
                raise
        self._write_covers()

    def _write_covers(self) -> None:
        for index, stream in self._copies.items():
            if index in self._source.covers:
                packet: Any = av.Packet(self._source.covers[index])
                packet.pts = packet.dts = 0
                packet.stream, packet.time_base = stream, stream.time_base or self._time_base
                packet.is_keyframe = True
                with self._writing(f"cannot write {self._target}"):
                    self._container.mux(packet)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or str(error)
            hint = "free some space and run the same command again" if error.errno == errno.ENOSPC else ""
            if hint and self._is_sequence:
                hint += " with -y, which replaces the pictures made so far"
            raise VideoError(f"{what}: {reason}", hint) from error


def describe(stream: Stream) -> str:
    """A stream in words: kind, codec and language."""
    context = stream.codec_context
    kind = "cover" if is_cover(stream) else stream.type
    parts = [kind if context is None else f"{context.name} {kind}"]
    language = stream.metadata.get("language", "und")
    if language != "und":
        parts.append(f"({language})")
    return f"stream {stream.index}, {' '.join(parts)}"


def _open(target: Path, part: Path, options: dict[str, str]) -> OutputContainer:
    """A container of the target's kind; there is no file before its header is written."""
    form = "image2" if is_pattern(str(target)) else None
    if form:
        check_pattern(target)
    try:
        container = av.open(ffmpeg_name(str(part)), "w", format=form, container_options=options)
    except ValueError as error:
        known = ".mp4, .mov, .mkv, .webm, .avi or numbered pictures such as frames_%04d.png"
        raise UsageError(
            f"cannot tell what kind of video {target.name} is to be: expected {known}"
        ) from error
    if not container.default_video_codec or container.default_video_codec == "none":
        container.close()
        raise UsageError(f"{target.name}: {container.format.long_name} holds no video")
    if container.format.name == "image2" and form is None:
        container.close()
        raise UsageError(
            f"{target.name} is one picture, not a video",
            f"number the pictures: {target.stem}_%04d{target.suffix}",
        )
    return container


def _find_encoder(
    container: OutputContainer, asked: str | None, target: Path, notice: Callable[[str], None]
) -> Codec:
    """The encoder for the video stream."""
    if asked is not None:
        encoder = _encoder(ALIASES.get(asked, asked))
        if encoder is None:
            short = ", ".join(ALIASES)
            raise UsageError(f"unknown codec '{asked}'", f"expected {short} or the name of an FFmpeg encoder")
        if encoder.type != "video":
            raise UsageError(f"codec '{asked}' encodes {encoder.type}, not video")
        _check_encoder(container, encoder, target)
        return encoder
    if container.format.name == "image2":
        return Codec(_PICTURE_CODECS.get(target.suffix.lower(), container.default_video_codec), "w")
    preferred = container.default_video_codec
    for name in (DEFAULT_CODEC, "h264", ALIASES.get(preferred, preferred)):
        encoder = _encoder(name)
        if encoder is None:
            continue
        with suppress(UsageError):
            _check_encoder(container, encoder, target)
            if DEFAULT_CODEC not in av.codecs_available:
                notice(f"this FFmpeg has no {DEFAULT_CODEC}: {encoder.name} is used")
            return encoder
    raise UsageError(
        f"{target.name}: {container.format.long_name} holds no video that this FFmpeg encodes well",
        "use -o with .mp4, .mkv or .webm; or name an encoder with --codec",
    )


def _encoder(name: str) -> Codec | None:
    try:
        return Codec(name, "w")
    except UnknownCodecError:
        return None


def _check_encoder(container: OutputContainer, encoder: Codec, target: Path) -> None:
    """Open an encoder, and write its stream's header in a container of the same format in memory.

    Raises:
        UsageError: The container cannot hold the stream, or the encoder cannot be used on this machine.
    """
    form, formats, quiet = container.format.name, encoder.video_formats, _QUIET.get(encoder.name, {})
    try:
        with av.open(io.BytesIO(), "w", format=form) as trial:
            stream: Any = trial.add_stream(encoder.name, rate=25, options=quiet, width=320, height=240)
            if formats:
                stream.pix_fmt = formats[0].name
            _open_encoder(stream.codec_context, encoder)
            trial.start_encoding()
    except (ValueError, av.FFmpegError, OSError) as error:
        raise UsageError(
            f"{target.name}: {form} cannot hold {encoder.canonical_name}",
            "use another --codec, or -o with .mkv",
        ) from error


def _open_encoder(context: Any, encoder: Codec) -> None:
    # FFmpeg's log says more, but PyAV hands it on under a lock that its own threads can wait for.
    try:
        context.open()
    except (av.FFmpegError, OSError) as error:
        raise UsageError(
            f"codec '{encoder.name}' cannot be used on this machine: {error.strerror}",
            "use one that needs no hardware or driver of its own, such as --codec h264",
        ) from error


def _quality(encoder: Codec, crf: int | None) -> dict[str, str]:
    """An encoder's options for constant quality.

    Raises:
        UsageError: The encoder has no such scale, or the number lies outside it.
    """
    known = {option.name: option for option in encoder.create().supported_options.private}
    if "crf" in known:
        _check_crf(encoder, crf, 0, _MAX_CRF.get(encoder.canonical_name, known["crf"].max))
        crf = DEFAULT_CRF.get(encoder.name) if crf is None else crf
        return (
            _SPEED.get(encoder.name, {})
            | _QUIET.get(encoder.name, {})
            | ({} if crf is None else {"crf": str(crf)})
        )
    if "cq" in known:
        _check_crf(encoder, crf, 0, known["cq"].max)
        return {"rc": "vbr", "cq": str(_DEFAULT_CQ if crf is None else crf), "b": "0"}
    if encoder.canonical_name in _QSCALE_CODECS:
        _check_crf(encoder, crf, 1, _MAX_QSCALE)
        scale = str(_DEFAULT_QSCALE if crf is None else crf)
        return {"qmin": scale, "qmax": scale}
    if crf is not None:
        raise UsageError(f"codec '{encoder.name}' has no --crf")
    return {}


def _check_crf(encoder: Codec, crf: int | None, least: int, most: float) -> None:
    if crf is not None and not least <= crf <= most:
        raise UsageError(f"--crf is {crf}, expected {least} to {most:g} for codec '{encoder.name}'")


def _half(pattern: Path) -> Path:
    """How FFmpeg names a picture of a sequence until it is whole."""
    return pattern.with_name(f"{pattern.name}.tmp")


def _timescale(time_base: Fraction) -> int:
    """The unit that FFmpeg gives an MP4 track of a time base."""
    ticks = time_base.denominator
    while ticks < _MIN_TIMESCALE:
        ticks *= 2
    return min(ticks, _MAX_TIMESCALE)


def _fresh(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key.lower() not in _STALE_TAGS}


def _shifted(chapters: Sequence[Any], offset: Fraction, until: Fraction | None) -> list[Any]:
    """Chapters of the part that is kept, in its time, where it ends at ``until``."""
    kept = []
    for chapter in chapters:
        unit = chapter["time_base"]
        shift = round(offset / unit)
        last = chapter["end"] - shift
        if until is not None:
            last = min(last, round(until / unit))
        first = max(chapter["start"] - shift, 0)
        if first < last:
            kept.append({**chapter, "start": first, "end": last})
    return kept
