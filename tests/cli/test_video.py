"""`dehaze video` as a stranger uses it, with a network of random weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from dehaze.cli import main
from dehaze.cli.video import DEFAULT_FPS, DEFAULT_SMOOTH, parse_time
from dehaze.errors import UsageError
from dehaze.models import build
from dehaze.video import VideoSettings
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint
from making import make_video, wild


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "model" / "toy.safetensors"
    header = Header(name="toy", architecture="lite", working_size=32)
    save_checkpoint(checkpoint, build("lite").state_dict(), header)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DEHAZE_MODEL", str(checkpoint))
    monkeypatch.setenv("DEHAZE_DEVICE", "cpu")


def files() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


def frames(name: str) -> int:
    with av.open(name) as container:
        return sum(1 for _ in container.decode(video=0))


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_writes_an_mp4_beside_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("drive.mkv"))
    assert main(["video", "drive.mkv"]) == 0
    assert files() == ["drive.mkv", "drive_dehazed.mp4"]
    assert frames("drive_dehazed.mp4") == 10
    streams = capsys.readouterr()
    assert streams.out == ""
    line = r"drive\.mkv -> drive_dehazed\.mp4  10 frames, \d+\.\d\d s, \d+\.\d frames/s\n"
    assert re.fullmatch(line, streams.err)


def test_json_is_one_line_and_alone(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"))
    assert main(["video", "a.mp4", "-o", "b.mkv", "--codec", "h265", "--json"]) == 0
    (record,) = records(capsys)
    assert record["input"] == "a.mp4"
    assert record["output"] == "b.mkv"
    assert (record["frames"], record["size"], record["codec"]) == (10, [64, 48], "libx265")
    assert set(record["stage_seconds"]) == {"decode", "network", "transfer", "encode"}
    assert (record["damaged"], record["interrupted"], record["notices"]) == (0, False, [])


def test_verbose_says_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"))
    assert main(["video", "a.mp4", "-v"]) == 0
    said = capsys.readouterr().err
    assert re.search(r"decode [\d.]+ s, network [\d.]+ s, transfer [\d.]+ s, encode [\d.]+ s", said)


def test_a_part_of_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"), frames=30)
    assert main(["video", "a.mp4", "--start", "0:00.4", "--duration", "0.2", "--json"]) == 0
    assert records(capsys)[0]["frames"] == 5


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"))
    assert main(["video", "a.mp4", "--dry-run"]) == 0
    assert files() == ["a.mp4"]
    assert capsys.readouterr().err == "would write a_dehazed.mp4 from a.mp4\n"
    assert main(["video", "a.mp4", "--dry-run", "-m", "none.safetensors"]) == 4
    make_video(Path("old.mp4"), frames=2)
    assert main(["video", "a.mp4", "-o", "old.mp4", "-y", "--dry-run"]) == 0
    assert main(["video", "a.mp4", "-o", "n_%02d.png", "--dry-run"]) == 0
    assert main(["video", "rtsp://127.0.0.1:9/x", "-o", "b.mp4", "--dry-run"]) == 0
    assert files() == ["a.mp4", "old.mp4"]
    assert frames("old.mp4") == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.mp4"], 1, "there is no file none.mp4"),
        (["nope:3.mp4"], 1, "there is no file nope:3.mp4"),
        (["empty.mp4"], 1, "empty.mp4 is empty: it has no bytes"),
        (["text.mp4"], 1, "text.mp4 cannot be opened as a video"),
        (["."], 2, ". is a directory, expected a video"),
        (["frame.PNG"], 2, "frame.PNG is a photo, expected a video"),
        (["a.mp4", "-o", "a.mp4"], 2, "the output a.mp4 is the input itself"),
        (["a.mp4", "-o", "empty.mp4"], 2, "empty.mp4 already exists"),
        (["a.mp4", "-o", "no/b.mp4"], 2, "there is no directory no"),
        (["a.mp4", "-o", "b.xyz"], 2, "cannot tell what kind of video b.xyz is to be"),
        (["a.mp4", "--codec", "nonsense"], 2, "unknown codec 'nonsense'"),
        (["a.mp4", "-o", "b.webm", "--codec", "h264"], 2, "b.webm: webm cannot hold h264"),
        (["a.mp4", "--crf", "52"], 2, "--crf is 52, expected 0 to 51 for codec 'libx264'"),
        (["a.mp4", "--start", "soon"], 2, "--start is 'soon', expected seconds"),
        (["a.mp4", "--start", "99"], 2, "--start 99 s is beyond the end of a.mp4"),
        (["a.mp4", "--duration", "0"], 2, "--duration is 0 seconds, expected more than 0"),
        (["a.mp4", "-m", "none.safetensors"], 4, "none.safetensors"),
        (["rtsp://127.0.0.1:9/x"], 2, "say where the video goes"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    arguments: list[str], status: int, message: str, dry: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(Path("a.mp4"))
    Path("empty.mp4").write_bytes(b"")
    Path("text.mp4").write_text("not a video" * 20)
    Path("frame.PNG").write_bytes(b"a picture")
    before = files()
    assert main(["video", *arguments, *dry]) == status
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.startswith("error: ")
    assert "Traceback" not in streams.err
    assert streams.out == ""
    assert files() == before


def test_notices_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"), prepare=lambda _, stream: stream.set_display_rotation(90))
    assert main(["video", "a.mp4", "-o", "b.avi"]) == 0
    assert "note: avi cannot store a rotation: the frames are turned upright" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), (".5", 0.5), ("1:30", 90), ("1:02:03.5", 3723.5), ("0", 0)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text, "--start") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "x", "1h", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--start is"):
        parse_time(text, "--start")


def test_defaults_are_the_librarys() -> None:
    assert VideoSettings().smooth == DEFAULT_SMOOTH
    assert VideoSettings().frame_rate == DEFAULT_FPS


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(number: signal.Signals, status: int) -> None:
    """Ctrl-C keeps a playable part; being terminated leaves nothing."""
    make_video(Path("a.mp4"), frames=4000)
    script = "import sys; from dehaze.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "video", "a.mp4", "--codec", "av1"], stderr=subprocess.PIPE, text=True
    )
    while not list(Path.cwd().glob(".*.part.mp4")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    if number == signal.SIGTERM:
        assert files() == ["a.mp4"]
        return
    assert "error: interrupted" in said
    if "nothing is written" in said:
        return
    assert files() == ["a.mp4", "a_dehazed.partial.mp4"]
    assert 0 < frames("a_dehazed.partial.mp4") < 4000


def test_a_video_that_ends_early_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("whole.mkv"), frames=100)
    content = Path("whole.mkv").read_bytes()
    Path("cut.mkv").write_bytes(content[: len(content) // 2])
    assert main(["video", "cut.mkv", "--json"]) == 0
    (record,) = records(capsys)
    assert 0 < record["frames"] < 90
    assert "before the end it announces: it may be cut short" in record["notices"][0]
    assert main(["video", "whole.mkv", "--json"]) == 0
    assert records(capsys)[0]["notices"] == []


def test_a_link_stays_and_what_it_leads_to_is_written() -> None:
    make_video(Path("a.mp4"))
    make_video(Path("real.mp4"), frames=2)
    Path("link.mp4").symlink_to("real.mp4")
    assert main(["video", "a.mp4", "-o", "link.mp4", "-y"]) == 0
    assert Path("link.mp4").is_symlink()
    assert frames("real.mp4") == 10


def test_numbered_pictures_that_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"))
    command = ["video", "a.mp4", "-o", "n_%02d.png", "--duration", "0.1"]
    assert main(command) == 0
    assert main(command) == 2
    assert "n_01.png already exists" in capsys.readouterr().err


def test_fps_without_numbered_pictures_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"), frames=2)
    warning = "warning: --fps has an effect only on numbered pictures\n"
    assert main(["video", "a.mp4", "-o", "n_%d.png", "--fps", "50"]) == 0
    assert capsys.readouterr().err.startswith(warning)
    assert main(["video", "n_%d.png", "-o", "b.mp4", "--fps", "50"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_network_without_an_answer_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("a.mp4"))
    assert main(["video", "a.mp4", "-m", str(wild(Path("wild.safetensors")))]) == 0
    assert capsys.readouterr().err.count("warning: model 'wild' has no answer") == 1


def test_encoders_do_not_talk_past_quiet() -> None:
    make_video(Path("a.mp4"))
    program = "from dehaze.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "video", "a.mp4", "-o", "b.mp4", "--codec", "h265", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
