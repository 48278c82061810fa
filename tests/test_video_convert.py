"""Videos from file to file: what comes in comes out, and what is damaged is passed over in clear words."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from dehaze.errors import UsageError, VideoError
from dehaze.upsample import LocalAffine
from dehaze.video import VideoReport, VideoSettings, default_target, dehaze_video, middle, sink, still
from making import FRAMES, HEIGHT, STEP, WIDTH, Affine, make_video, picture, tone


def packets(path: Path, kind: str) -> list[tuple[Fraction, str]]:
    """When each packet of a kind of stream is due, and what is in it."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, hashlib.sha256(bytes(packet)).hexdigest())
            for packet in container.demux()
            if packet.stream.type == kind and packet.size and packet.pts is not None
        ]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0) if frame.pts is not None]


def pixels(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def convert(source: Path | str, target: Path, dehazer: Any = None, **settings: Any) -> VideoReport:
    return dehaze_video(str(source), target, dehazer or Affine(), VideoSettings(**settings))


def close(a: np.ndarray, b: np.ndarray, levels: float = 3) -> bool:
    return bool(np.abs(a.astype(float) - b.astype(float)).mean() < levels)


# --- what is kept


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_every_frame_comes_out_at_its_own_time(tmp_path: Path, suffix: str) -> None:
    uneven = [9000, 10_800, 14_400, 36_000, 36_090, 45_000, 90_000, 99_000, 180_000, 270_000]
    source = make_video(tmp_path / f"in{suffix}", times=uneven)
    report = convert(source, tmp_path / f"out{suffix}")
    assert report.frames == FRAMES
    assert times(report.target) == times(source)


def test_pixels_survive_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    report = convert(source, tmp_path / "out.mp4", crf=4)
    for before, after in zip(pixels(source), pixels(report.target), strict=True):
        assert close(before, after, 1.0)


def test_the_affine_map_is_applied_to_every_frame(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    report = convert(source, tmp_path / "out.mp4", Affine(1.5, -0.2), crf=4)
    for before, after in zip(pixels(source), pixels(report.target), strict=True):
        wanted = np.clip(before.astype(float) * 1.5 - 0.2 * 255, 0, 255)
        assert close(wanted, after, 3)


def test_strength_zero_asks_no_network(tmp_path: Path) -> None:
    source, dehazer = make_video(tmp_path / "in.mp4"), Affine(2.0)
    report = convert(source, tmp_path / "out.mp4", dehazer, strength=0, crf=4)
    assert dehazer.seen == []
    assert close(pixels(source)[0], pixels(report.target)[0], 1.0)


def test_a_small_frame_gets_the_networks_own_answer_if_unsmoothed(tmp_path: Path) -> None:
    class Own(Affine):
        def __call__(self, pixels: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
            return np.full_like(pixels, 99)

        def working_shape(self, height: int, width: int) -> tuple[int, int]:
            return height, width

    report = convert(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4", Own(), smooth=0)
    assert close(pixels(report.target)[0], np.full((HEIGHT, WIDTH, 3), 99))


def test_sound_is_copied_packet_by_packet(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", audio=True)
    report = convert(source, tmp_path / "out.mp4")
    assert packets(source, "audio") == packets(report.target, "audio")
    assert packets(source, "audio")
    assert report.notices == []
    silent = convert(source, tmp_path / "silent.mp4", audio="none")
    assert packets(silent.target, "audio") == []


def subtitled(path: Path) -> Path:
    """A Matroska file with subtitles, an attachment, chapters and metadata."""

    def prepare(container: Any, stream: Any) -> None:
        container.metadata.update({"title": "Ünï & <co>", "artist": "me"})
        stream.metadata["language"] = "deu"
        chapter = {
            "id": 1,
            "start": 0,
            "end": 200,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": "One"},
        }
        container.set_chapters(
            [chapter, {**chapter, "id": 2, "start": 200, "end": 400, "metadata": {"title": "Two"}}]
        )
        container.add_attachment("note.txt", "text/plain", b"remember")
        lines = container.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        container.start_encoding()
        for start in (0, 200):
            packet = av.Packet(b"fog")
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), lines
            container.mux(packet)

    return make_video(path, prepare=prepare)


def test_subtitles_attachments_chapters_and_metadata_are_kept(tmp_path: Path) -> None:
    source = subtitled(tmp_path / "in.mkv")
    report = convert(source, tmp_path / "out.mkv")
    assert report.notices == []
    assert len(packets(source, "subtitle")) == 2
    assert packets(report.target, "subtitle") == packets(source, "subtitle")
    with av.open(str(report.target)) as container:
        assert container.metadata["title"] == "Ünï & <co>"
        assert container.streams.video[0].metadata["language"] == "deu"
        found = [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in container.chapters()]
        assert found == [(0, "One"), (Fraction(1, 5), "Two")]
        (attachment,) = (stream for stream in container.streams if stream.type == "attachment")
        assert attachment.data == b"remember"
        assert attachment.metadata["filename"] == "note.txt"


def test_what_a_container_cannot_hold_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    report = convert(subtitled(tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert report.frames == FRAMES
    assert [notice.split(":")[0] for notice in report.notices] == [
        "mp4 cannot hold stream 1, srt subtitle",
        "mp4 cannot hold stream 2, attachment",
    ]
    with av.open(str(report.target)) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One", "Two"]


def colour_tags(container: Any, stream: Any) -> None:
    context = stream.codec_context
    context.color_range, context.colorspace, context.color_primaries, context.color_trc = 2, 9, 9, 14
    context.sample_aspect_ratio = Fraction(4, 3)


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("h265", ".mp4"), ("h264", ".mkv")])
def test_ten_bits_colour_tags_and_pixel_shape_are_kept(tmp_path: Path, codec: str, suffix: str) -> None:
    source = make_video(tmp_path / "in.mp4", pix_fmt="yuv420p10le", prepare=colour_tags)
    report = convert(source, tmp_path / f"out{suffix}", codec=codec, crf=4)
    with av.open(str(source)) as old, av.open(str(report.target)) as new:
        a, b = (container.streams.video[0].codec_context for container in (old, new))
        assert b.pix_fmt == "yuv420p10le"
        for name in ("color_range", "colorspace", "color_primaries", "color_trc", "sample_aspect_ratio"):
            assert getattr(b, name) == getattr(a, name)
        assert a.colorspace == 9
        first, other = (next(container.decode(video=0)).to_ndarray() for container in (old, new))
    assert close(first, other, 6)


def test_a_codec_of_eight_bits_says_so(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pix_fmt="yuv420p10le")
    report = convert(source, tmp_path / "out.avi", codec="mpeg4")
    assert "mpeg4 has no 10 bits a channel: 8 are kept" in report.notices


def test_full_range_becomes_limited_where_the_codec_cannot_tell(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", prepare=colour_tags)
    report = convert(source, tmp_path / "out.mov", codec="prores")
    assert close(pixels(source)[0], pixels(report.target)[0], 2)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_kept_and_the_network_sees_the_picture_upright(tmp_path: Path, degrees: int) -> None:
    source = make_video(tmp_path / "in.mp4", prepare=lambda _, stream: stream.set_display_rotation(degrees))
    dehazer = Affine()
    report = convert(source, tmp_path / "out.mp4", dehazer)
    with av.open(str(report.target)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation % 360 == degrees
        assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    # `rotation` is counter-clockwise, as numpy turns.
    assert close(dehazer.seen[0], np.rot90(picture(0), degrees // 90), 4)
    assert close(still(str(report.target)), np.rot90(picture(5), degrees // 90), 6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_upright_where_rotation_cannot_be_stored(tmp_path: Path, mirrored: bool) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.set_display_rotation(90, hflip=mirrored)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = make_video(tmp_path / "in.mp4", prepare=prepare)
    report = convert(source, tmp_path / "out.avi")
    assert report.notices == ["avi cannot store a rotation: the frames are turned upright"]
    upright = np.rot90(picture(0))
    assert close(pixels(report.target)[0], upright[:, ::-1] if mirrored else upright, 5)
    with av.open(str(report.target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize("size", [(65, 48), (64, 49), (65, 49)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make_video(tmp_path / "in.mkv", size=size, codec="ffv1")
    report = convert(source, tmp_path / "out.mp4", crf=4)
    with av.open(str(report.target)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == size
    assert any("is odd" in notice for notice in report.notices)
    assert close(pixels(source)[0], pixels(report.target)[0])


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    report = convert(make_video(tmp_path / "in.mp4", frames=1), tmp_path / "out.mp4")
    assert report.frames == 1
    assert len(pixels(report.target)) == 1


def test_times_are_made_up_for_streams_without_any(tmp_path: Path) -> None:
    report = convert(make_video(tmp_path / "in.h264"), tmp_path / "out.mp4")
    assert report.frames == FRAMES
    assert times(report.target) == [Fraction(index, 25) for index in range(FRAMES)]
    assert any("no time of their own" in notice for notice in report.notices)


def with_cover(path: Path, kind: str = "mjpeg", videos: int = 1) -> Path:
    """An MP4 file with a cover and one or more equal video streams."""
    plain = make_video(path.with_name("plain.mp4"))
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        streams = [new.add_stream_from_template(old.streams.video[0], opaque=True) for _ in range(videos)]
        cover: Any = new.add_stream(kind, rate=1, width=WIDTH, height=HEIGHT)
        cover.pix_fmt = "yuvj420p" if kind == "mjpeg" else "rgb24"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(0)).reformat(format=cover.pix_fmt)
        frame.pts = 0
        new.mux([*cover.encode(frame), *cover.encode(None)])
        for packet in old.demux():
            for stream in streams if packet.size else []:
                copy: Any = av.Packet(bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.duration, copy.is_keyframe, copy.stream = packet.duration, packet.is_keyframe, stream
                new.mux(copy)
    plain.unlink()
    return path


def covers(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        numbers = {s.index for s in container.streams if s.disposition & Disposition.attached_pic}
        return [
            bytes(packet) for packet in container.demux() if packet.size and packet.stream_index in numbers
        ]


@pytest.mark.parametrize("kind", ["mjpeg", "png"])
def test_a_cover_is_kept(tmp_path: Path, kind: str) -> None:
    source = with_cover(tmp_path / "in.mp4", kind)
    assert len(covers(source)) == 1
    for name in ("out.mp4", "out.mkv", "again.mkv", "back.mp4"):
        report = convert(source, tmp_path / name, start=0.05)
        assert report.notices == []
        assert covers(report.target) == covers(source)
        source = report.target


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".ts"])
def test_a_cover_that_a_container_cannot_hold_is_told(tmp_path: Path, suffix: str) -> None:
    report = convert(with_cover(tmp_path / "in.mp4"), tmp_path / f"out{suffix}")
    assert report.notices == [f"{form(report)} cannot hold stream 1, mjpeg cover: left out"]


def form(report: VideoReport) -> str:
    return {".avi": "avi", ".mov": "mov", ".ts": "mpegts"}[report.target.suffix]


def test_the_titles_of_chapters_are_no_stream_of_their_own(tmp_path: Path) -> None:
    source = convert(subtitled(tmp_path / "in.mkv"), tmp_path / "in.mp4").target
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    for name in ("out.mp4", "out.mov", "out.mkv"):
        report = convert(source, tmp_path / name)
        assert report.notices == []
        with av.open(str(report.target)) as container:
            assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One", "Two"]
    report = convert(source, tmp_path / "out.avi")
    assert report.notices == ["avi cannot hold stream 1, data (eng): left out"]


def timecoded(path: Path, code: str) -> Path:
    return make_video(path, prepare=lambda container, _: container.metadata.update(timecode=code))


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
def test_a_timecode_is_kept(tmp_path: Path, suffix: str) -> None:
    source = timecoded(tmp_path / "in.mov", "01:02:03:04")
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    report = convert(source, tmp_path / f"out{suffix}")
    assert report.notices == []
    with av.open(str(report.target)) as container:
        assert [stream.metadata["timecode"] for stream in container.streams] == ["01:02:03:04"] * 2


def test_a_timecode_is_given_to_the_dehazed_stream_alone(tmp_path: Path) -> None:
    source, target = with_cover(tmp_path / "plain_in.mp4", videos=2), tmp_path / "in.mkv"
    convert(source, target)
    with av.open(str(target)) as old, av.open(str(tmp_path / "coded.mkv"), "w") as new:
        streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams.video[:2]]
        new.metadata["timecode"] = streams[1].metadata["timecode"] = "01:02:03:04"
        for packet in old.demux(old.streams.video[:2]):
            if packet.size:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    report = convert(tmp_path / "coded.mkv", tmp_path / "out.mp4")
    assert report.notices == []
    with av.open(str(report.target)) as container:
        codes = [stream.metadata.get("timecode") for stream in container.streams]
    assert codes == ["01:02:03:04", None, "01:02:03:04"]


@pytest.mark.parametrize("code", ["01:02:03;04", "soon"])
def test_a_timecode_that_a_container_cannot_hold_is_told(tmp_path: Path, code: str) -> None:
    report = convert(timecoded(tmp_path / "in.mkv", code), tmp_path / "out.mp4")
    assert report.notices == [f"mp4 cannot hold the timecode {code} at 25 frames a second: left out"]
    assert report.frames == FRAMES


def whole_frames(_: Any, stream: Any) -> None:
    """Count time in frames, as older encoders want it."""
    stream.codec_context.time_base = Fraction(1, 25)


def test_dv_has_its_frame_rate_and_its_timecode(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.dv", frames=3, size=(720, 576), codec="dvvideo", prepare=whole_frames)
    report = convert(source, tmp_path / "out.mp4")
    assert report.frames == 3
    assert not any("timecode" in notice for notice in report.notices)
    with av.open(str(report.target)) as container:
        assert container.streams.video[0].average_rate == 25
        assert container.streams.video[0].metadata["timecode"] == "00:00:00:00"


# --- parts, sequences, formats


def test_start_and_duration_cut_frames_sound_and_chapters_alike(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", frames=25, audio=True)
    report = convert(source, tmp_path / "out.mp4", start=0.3, duration=0.4)
    assert times(report.target) == [t - Fraction(3, 10) for t in times(source) if 0.3 <= t < 0.7]
    assert times(report.target)[0] == Fraction(1, 50)
    kept = {data for t, data in packets(source, "audio") if 0.3 <= t < 0.699}
    assert kept <= {data for _, data in packets(report.target, "audio")}
    assert all(0 <= t < 0.4 for t, _ in packets(report.target, "audio"))
    assert close(pixels(report.target)[0], picture(8))

    chapters = convert(subtitled(tmp_path / "c.mkv"), tmp_path / "c_out.mkv", start=0.1)
    with av.open(str(chapters.target)) as container:
        spans = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]
    assert spans[0] == (0, pytest.approx(0.1))
    assert spans[1][0] == pytest.approx(0.1)


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_a_start_is_found_where_only_times_can_be_sought(tmp_path: Path, suffix: str, codec: str) -> None:
    def prepare(container: Any, stream: Any) -> None:
        whole_frames(container, stream)
        stream.codec_context.bit_rate, stream.codec_context.gop_size = 20_000_000, 6

    source = make_video(tmp_path / f"in{suffix}", frames=24, size=(160, 120), codec=codec, prepare=prepare)
    for start, first in ((0.2, 5), (0.4, 10), (0.6, 15)):
        report = convert(source, tmp_path / f"{first}.mkv", start=start, crf=4)
        assert report.frames == 24 - first
        assert close(pixels(report.target)[0], pixels(source)[first], 0.8)


def late(path: Path) -> Path:
    """Five seconds of nothing, ten frames and a chapter."""

    def prepare(container: Any, _: Any) -> None:
        chapter = {"id": 1, "start": 5000, "end": 5400, "time_base": Fraction(1, 1000), "metadata": {}}
        container.set_chapters([chapter])

    return make_video(path, times=[450_000 + index * STEP for index in range(FRAMES)], prepare=prepare)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".nut"])
def test_a_video_that_begins_late_is_whole(tmp_path: Path, suffix: str) -> None:
    source = late(tmp_path / f"in{suffix}")
    told: list[int | None] = []
    report = dehaze_video(
        str(source), tmp_path / "out.mkv", Affine(), progress=lambda done, total: told.append(total)
    )
    assert [notice for notice in report.notices if "cut short" in notice] == []
    assert set(told) <= {FRAMES - 1, FRAMES}
    assert times(report.target) == times(source)
    with av.open(str(report.target)) as container:
        spans = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
    assert spans == [(5, Fraction(27, 5))]
    part = convert(source, tmp_path / "part.mkv", start=0.2)
    assert part.frames == FRAMES // 2
    with pytest.raises(UsageError, match=r"--start 2 s is beyond the end of .*, which has 0\.\d+ s"):
        convert(source, tmp_path / "none.mkv", start=2)


def test_a_start_beyond_the_end_is_refused(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    with pytest.raises(UsageError, match=r"--start 9 s is beyond the end of .*in\.mp4, which has 0\.40 s"):
        convert(source, tmp_path / "out.mp4", start=9)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("settings", "shown"),
    [({"start": 0.39}, 9), ({"start": 0.1, "duration": 0.015}, 2), ({"duration": 0.0001}, 0)],
)
def test_a_part_in_which_no_frame_begins_has_the_one_that_is_shown(
    tmp_path: Path, settings: dict[str, float], shown: int
) -> None:
    report = convert(make_video(tmp_path / "in.mp4", audio=True), tmp_path / "out.mp4", **settings)
    assert times(report.target) == [0]
    assert close(pixels(report.target)[0], picture(shown))


def test_a_start_after_the_last_frame_is_refused_where_the_length_is_unknown(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.h264")
    with pytest.raises(UsageError, match=r"in\.h264 has no frame at 9 s or after it"):
        convert(source, tmp_path / "out.mp4", start=9)
    with pytest.raises(UsageError, match=r"in\.h264 has no frame from 9 s to 9\.5 s"):
        convert(source, tmp_path / "out.mp4", start=9, duration=0.5)


def test_a_still_may_be_of_any_moment(tmp_path: Path) -> None:
    source = str(make_video(tmp_path / "in.mp4"))
    assert middle(source) == pytest.approx(0.2)
    assert close(still(source, 0.32), picture(8), 1.5)
    assert close(still(source, 0), picture(0), 1.5)


def test_one_frame_has_a_middle(tmp_path: Path) -> None:
    assert close(still(str(make_video(tmp_path / "in.mp4", frames=1))), picture(0))


def test_numbered_pictures_in_and_out(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    out = convert(source, tmp_path / "f_%03d.png")
    assert out.frames == FRAMES
    names = sorted(path.name for path in tmp_path.glob("f_*"))
    assert names == [f"f_{index:03d}.png" for index in range(1, FRAMES + 1)]
    (tmp_path / "f_001.png").unlink()
    back = convert(tmp_path / "f_%03d.png", tmp_path / "back.mp4", crf=4, frame_rate=50)
    assert times(back.target) == [Fraction(index, 50) for index in range(FRAMES - 1)]
    for before, after in zip(pixels(source)[1:], pixels(back.target), strict=True):
        assert close(before, after)
    again = convert(tmp_path / "f_%03d.png", tmp_path / "g_%03d.jpg")
    assert (tmp_path / "g_002.jpg").exists()
    assert close(pixels(tmp_path / "g_002.jpg")[0], pixels(source)[1])
    assert again.frames == FRAMES - 1


@pytest.mark.parametrize(
    ("directory", "before", "after"),
    [
        *((name, "f_", ".png") for name in ("50%d one", "b%%c", "%03d.png", "at 12:30 5%")),
        *(("in", before, ".png") for before in ("", "100%_", "a%%b", "at 12:30 5%-")),
        ("in", "f_", "_5%.png"),
    ],
)
def test_all_but_the_number_of_numbered_pictures_is_a_name(
    tmp_path: Path, directory: str, before: str, after: str
) -> None:
    below = tmp_path / directory / "below"
    below.mkdir(parents=True)
    pattern = below / f"{before}%03d{after}"
    source = make_video(tmp_path / "in.mp4")
    for overwrite in (False, True):
        report = dehaze_video(str(source), pattern, Affine(), overwrite=overwrite)
        assert report.frames == FRAMES
    assert sorted(path.name for path in below.iterdir()) == [
        f"{before}{i:03d}{after}" for i in range(1, FRAMES + 1)
    ]
    back = convert(pattern, tmp_path / "back.mp4")
    assert close(pixels(back.target)[-1], picture(FRAMES - 1), 4)


def test_numbered_pictures_of_other_sizes_are_told(tmp_path: Path) -> None:
    for index, width in enumerate((64, 64, 48)):
        Image.new("RGB", (width, 48), "gray").save(tmp_path / f"f_{index}.png")
    report = convert(tmp_path / "f_%d.png", tmp_path / "g_%d.png")
    assert report.notices == ["frames of another size than the first, brought to 64 x 48: 1"]
    assert pixels(tmp_path / "g_2.png")[0].shape == (48, 64, 3)


def test_a_gap_in_numbered_pictures_is_refused_by_name(tmp_path: Path) -> None:
    convert(make_video(tmp_path / "in.mp4"), tmp_path / "f_%03d.png")
    (tmp_path / "f_004.png").unlink()
    with pytest.raises(VideoError, match=r"f_004\.png is missing from the image sequence"):
        convert(tmp_path / "f_%03d.png", tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="no picture is named like"):
        convert(tmp_path / "none_%03d.png", tmp_path / "out.mp4")


def test_a_name_may_look_like_a_protocol_or_a_pattern(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    odd = source.rename(tmp_path / "at 12:30 100%03d.mp4")
    report = convert(odd, tmp_path / "to 12:31 %d.mp4")
    assert report.frames == FRAMES
    assert report.target.exists()


def test_webm_gets_a_codec_that_it_can_hold(tmp_path: Path) -> None:
    report = convert(make_video(tmp_path / "in.mp4"), tmp_path / "out.webm")
    assert report.codec == "libvpx-vp9"
    assert times(report.target) == times(tmp_path / "in.mp4")


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("out.mp4", {"codec": "nonsense"}, "unknown codec 'nonsense'"),
        ("out.mp4", {"codec": "aac"}, "codec 'aac' encodes audio, not video"),
        ("out.webm", {"codec": "h264"}, "webm cannot hold h264"),
        ("out.mov", {"codec": "prores", "crf": 20}, "codec 'prores_ks' has no --crf"),
        ("out.mp4", {"crf": 52}, "--crf is 52, expected 0 to 51 for codec 'libx264'"),
        ("out.mp4", {"codec": "h265", "crf": 99}, "--crf is 99, expected 0 to 51 for codec 'libx265'"),
        ("out.webm", {"crf": 64}, "--crf is 64, expected 0 to 63 for codec 'libvpx-vp9'"),
        ("out_%d_%d.jpg", {}, r"out_%d_%d\.jpg must have exactly one number"),
        ("out_%d.jpg", {"crf": 0}, "--crf is 0, expected 1 to 31 for codec 'mjpeg'"),
        ("out.xyz", {}, r"cannot tell what kind of video out\.xyz is to be"),
        ("out.wav", {}, "holds no video"),
        ("out.gif", {}, "holds no video that this FFmpeg encodes well"),
        ("out.jpg", {}, r"out\.jpg is one picture, not a video"),
        ("no/out.mp4", {}, "there is no directory"),
        ("in.mp4", {}, "is the input itself"),
    ],
)
def test_impossible_wishes_are_refused(
    tmp_path: Path, target: str, settings: dict[str, Any], message: str
) -> None:
    source = make_video(tmp_path / "in.mp4")
    whole = source.read_bytes()
    with pytest.raises(UsageError, match=message):
        convert(source, tmp_path / target, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    assert source.read_bytes() == whole


@pytest.mark.parametrize(("codec", "best", "worst"), [("h264", 0, 51), ("mpeg4", 1, 31)])
def test_crf_is_quality_from_end_to_end_of_its_scale(
    tmp_path: Path, codec: str, best: int, worst: int
) -> None:
    source = make_video(tmp_path / "in.mp4", frames=2, size=(320, 240))
    sizes = [
        convert(source, tmp_path / f"{crf}.avi", codec=codec, crf=crf).target.stat().st_size
        for crf in (best, worst)
    ]
    assert sizes[1] < 0.75 * sizes[0]


def test_an_encoder_that_cannot_be_opened_is_not_blamed_on_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sink._QUIET, "libx264", {"preset": "none"})  # as refused as one without its hardware
    with pytest.raises(UsageError) as caught:
        convert(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4", codec="h264")
    assert caught.value.message.startswith("codec 'libx264' cannot be used on this machine: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    "settings",
    [{"smooth": -1}, {"start": -1}, {"duration": 0}, {"frame_rate": 0}, {"strength": 2}, {"audio": "loud"}],
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        VideoSettings(**settings)


def test_an_output_is_replaced_only_on_request(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    target = tmp_path / "out.mp4"
    target.write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        convert(source, target)
    assert target.read_text() == "precious"
    dehaze_video(str(source), target, Affine(), overwrite=True)
    assert len(pixels(target)) == FRAMES
    dehaze_video(str(source), source, Affine(), overwrite=True)
    assert len(pixels(source)) == FRAMES


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    source, target = make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    target.write_text("private")
    target.chmod(0o600)
    modes: set[int] = set()

    def look(*_: Any) -> None:
        modes.update(stat.S_IMODE(part.stat().st_mode) for part in tmp_path.glob(".*.part.mp4"))

    dehaze_video(str(source), target, Affine(), overwrite=True, progress=look)
    assert len(pixels(target)) == FRAMES
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert modes == {0o600}


def test_numbered_pictures_that_are_replaced_keep_their_permissions(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    for index in (1, 2, FRAMES):
        old = tmp_path / f"f_{index:02d}.png"
        old.touch()
        old.chmod(0o604)
    dehaze_video(str(source), tmp_path / "f_%02d.png", Affine(), overwrite=True)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.glob("f_*"))]
    assert len(pixels(tmp_path / "f_02.png")) == 1
    assert [modes[index] for index in (0, 1, FRAMES - 1)] == [0o604] * 3
    assert 0o604 not in modes[2:-1]


@pytest.mark.parametrize("name", ["out.mp4", "out_%02d.png"])
def test_a_write_protected_file_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, dehazer = make_video(tmp_path / "in.mp4"), Affine()
    old = tmp_path / name.replace("%02d", "03")
    old.write_text("precious")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(VideoError, match=f"cannot write .*{old.name}: it is write-protected"):
        dehaze_video(str(source), tmp_path / name, dehazer, overwrite=True)
    assert dehazer.seen == []
    assert old.read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, r"cannot write .*out\.mp4: Permission denied"),
        (errno.EROFS, r"cannot write .*out\.mp4: Read-only file system"),
        (errno.ENOSPC, r"cannot write .*out\.mp4: No space left on device"),
        (errno.ENOENT, r"cannot write .*out\.mp4: No such file or directory"),
        (errno.EINVAL, "libx264 cannot encode this video: Invalid argument"),
    ],
)
def test_a_place_that_cannot_be_written_is_no_fault_of_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    class Refusing:
        """A container that is refused its file."""

        def __init__(self, *arguments: Any) -> None:
            self._container = opened(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def start_encoding(self) -> None:
            raise OSError(number, os.strerror(number))

    opened = sink._open
    monkeypatch.setattr(sink, "_open", Refusing)
    with pytest.raises(VideoError, match=message):
        convert(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_video_is_on_the_disk_before_it_replaces_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source, target = make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    target.write_text("precious")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VideoError, match=r"out\.mp4: No space left on device"):
        dehaze_video(str(source), target, Affine(), overwrite=True)
    assert target.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_where_a_video_goes_that_is_not_named() -> None:
    assert default_target("a/drive.mkv") == Path("a/drive_dehazed.mp4")
    assert default_target("a/frames_%04d.png") == Path("a/frames_dehazed.mp4")
    assert default_target("nope:3.mp4") == Path("nope:3_dehazed.mp4")
    for live in ("rtsp://camera/1", "/dev/video0", "pipe:0", "concat:a.ts|b.ts"):
        with pytest.raises(UsageError, match="say where the video goes"):
            default_target(live)


# --- bad input


def damage(path: Path, *numbers: int) -> None:
    """Overwrite all but the first bytes of some packets of the only stream."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        start, size = places[number]
        data[start + 16 : start + size] = bytes(size - 16)
    path.write_bytes(data)


def test_a_damaged_packet_in_the_middle_costs_its_own_frame_only(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mov", codec="png", pix_fmt="rgb24")
    whole = times(source)
    damage(source, 4)
    report = convert(source, tmp_path / "out.mp4")
    assert report.damaged == 1
    assert report.notices == [f"1 damaged packet or frame in {source}"]
    assert times(report.target) == whole[:4] + whole[5:]


def test_damage_within_a_group_of_frames_stops_nothing(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", frames=24)
    whole = times(source)
    damage(source, 7, 8)
    report = convert(source, tmp_path / "out.mp4")
    assert report.damaged
    assert report.frames >= 20
    assert set(times(report.target)) <= set(whole)
    assert times(report.target)[-1] == whole[-1]


def test_a_file_that_ends_early_gives_what_there_is(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.ts", frames=50)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    report = convert(source, tmp_path / "out.mp4")
    assert 5 < report.frames < 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", "is empty: it has no bytes"),
        ("text.mp4", b"not a video at all, only words" * 9, "cannot be opened as a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=message):
        convert(tmp_path / name, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="there is no file"):
        convert(tmp_path / "none.mp4", tmp_path / "out.mp4")
    with pytest.raises(VideoError, match=r"there is no file nope:3\.mp4"):
        convert("nope:3.mp4", tmp_path / "out.mp4")
    with pytest.raises(UsageError, match="is a directory, expected a video"):
        convert(tmp_path, tmp_path / "out.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        for index in range(5):
            container.mux(stream.encode(tone(index)))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="has no video stream, only audio"):
        convert(path, tmp_path / "out.mp4")


def test_a_video_without_a_single_good_frame_leaves_nothing(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mov", codec="png", pix_fmt="rgb24")
    damage(source, *range(FRAMES))
    with pytest.raises(
        VideoError, match=r"no frame of .* can be decoded: all of it is damaged, or of a kind"
    ):
        convert(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mov"]


# --- interruptions and failures


def test_stopping_keeps_a_playable_part(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", frames=40, audio=True)
    written = []

    def stopped() -> VideoReport:
        written.clear()
        return dehaze_video(
            str(source),
            tmp_path / "out.mp4",
            Affine(),
            progress=lambda done, total: written.append((done, total)),
            stop=lambda: len(written) >= 5,
        )

    report = stopped()
    assert report.interrupted
    assert report.target == tmp_path / "out.partial.mp4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.partial.mp4"]
    assert times(report.target) == times(source)[: report.frames]
    assert 5 <= report.frames < 40
    again = stopped()
    assert again.target == tmp_path / "out.partial-2.mp4"  # what was done before stays
    assert times(report.target) == times(source)[: report.frames]
    assert written[0] == (1, 40)


def test_a_failure_midway_leaves_no_file(tmp_path: Path) -> None:
    class Failing(Affine):
        def estimate(self, pixels: np.ndarray) -> LocalAffine:
            if len(self.seen) == 5:
                raise RuntimeError("the network broke")
            return super().estimate(pixels)

    source = make_video(tmp_path / "in.mp4", frames=20)
    with pytest.raises(RuntimeError, match="the network broke"):
        convert(source, tmp_path / "out.mp4", Failing())
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_output_directory_that_vanishes_is_named(tmp_path: Path) -> None:
    class Vandal(Affine):
        def estimate(self, pixels: np.ndarray) -> LocalAffine:
            for path in (tmp_path / "out").glob("*"):
                path.unlink()
            if (tmp_path / "out").exists():
                (tmp_path / "out").rmdir()
            return super().estimate(pixels)

    (tmp_path / "out").mkdir()
    with pytest.raises(VideoError, match=r"cannot write .*out/out\.mp4: No such file or directory"):
        convert(make_video(tmp_path / "in.mp4"), tmp_path / "out" / "out.mp4", Vandal())


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are a matter of POSIX")
@pytest.mark.parametrize("name", ["out.mp4", "out_%02d.bmp"])
def test_a_disk_that_fills_leaves_no_file(tmp_path: Path, name: str) -> None:
    source = make_video(tmp_path / "in.mp4", frames=30)
    script = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from making import Affine
from dehaze.errors import VideoError
from dehaze.video import VideoSettings, dehaze_video
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    dehaze_video(sys.argv[2], Path(sys.argv[3]), Affine(), VideoSettings())
except VideoError as error:
    sys.stderr.write(error.message)
"""
    arguments = [str(Path(__file__).parent), str(source), str(tmp_path / name)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert f"{name}: File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1024


def test_numbered_pictures_stay_when_the_disk_is_full_and_the_hint_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = sink.Sink.write, 0

    def filling(self: sink.Sink, *arguments: Any) -> None:
        nonlocal count
        count += 1
        with self._writing("cannot write"):
            if count == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *arguments)

    source, target = make_video(tmp_path / "in.mp4"), tmp_path / "f_%02d.png"
    monkeypatch.setattr(sink.Sink, "write", filling)
    with pytest.raises(VideoError) as caught:
        convert(source, target)
    assert caught.value.hint.endswith("again with -y, which replaces the pictures made so far")
    made = sorted(path.name for path in tmp_path.glob("f_*"))  # the encoder's threads may hold some back
    assert made
    assert made == ["f_01.png", "f_02.png", "f_03.png"][: len(made)]
    with pytest.raises(UsageError, match=r"f_01\.png already exists"):
        convert(source, target)
    assert dehaze_video(str(source), target, Affine(), overwrite=True).frames == FRAMES


def test_frames_are_decoded_only_a_few_ahead_of_those_written(tmp_path: Path) -> None:
    dehazer, lead, written = Affine(), [], 0

    def progress(done: int, total: int | None) -> None:
        nonlocal written
        written = done
        lead.append(len(dehazer.seen) - written)

    dehaze_video(
        str(make_video(tmp_path / "in.mp4", frames=60)), tmp_path / "out.mp4", dehazer, progress=progress
    )
    assert max(lead) <= 8


def test_the_report_says_where_the_time_goes(tmp_path: Path) -> None:
    report = convert(make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    assert set(report.stage_seconds) == {"decode", "network", "transfer", "encode"}
    assert all(seconds > 0 for seconds in report.stage_seconds.values())
    assert report.frames_per_second == pytest.approx(report.frames / report.wall_seconds)
