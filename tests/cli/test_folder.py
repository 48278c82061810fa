"""`dehaze folder` as a stranger uses it, with a network of random weights."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dehaze.cli import main
from dehaze.models import build
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
    for name in ("a.jpg", "b.png", "day1/x.jpg", "day2/x.jpg"):
        make(name)


def make(name: str, size: tuple[int, int] = (40, 30)) -> None:
    path = Path("trip") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)


def tree(root: str = "trip_dehazed") -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in Path(root).rglob("*") if p.is_file())


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_network_without_an_answer_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    make_video(Path("trip/a.mp4"))
    assert main(["folder", "trip", "-r", "-m", str(wild(Path("wild.safetensors")))]) == 0
    assert capsys.readouterr().err.count("warning: model 'wild' has no answer") == 1


def test_makes_the_same_tree_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "-r"]) == 0
    assert tree() == ["a.jpg", "b.png", "day1/x.jpg", "day2/x.jpg"]
    streams = capsys.readouterr()
    assert streams.out == ""
    assert re.fullmatch(r"trip_dehazed: 4 done, \d+\.\d s, \d+\.\d files/s\n", streams.err)


def test_one_line_of_json_a_file_and_status_3_if_some_fail(capsys: pytest.CaptureFixture[str]) -> None:
    (Path("trip") / "a.jpg").write_bytes(b"not a picture")
    make_video(Path("trip/clip.mp4"))
    assert main(["folder", "trip", "--json"]) == 3
    streams = capsys.readouterr()
    found = [json.loads(line) for line in streams.out.splitlines()]
    assert [(r["input"], r["status"]) for r in found] == [
        ("trip/a.jpg", "failed"),
        ("trip/b.png", "done"),
        ("trip/clip.mp4", "done"),
    ]
    assert "is not a picture" in found[0]["error"]
    assert found[0]["exit_status"] == 1
    assert found[1]["output"] == "trip_dehazed/b.png"
    assert (found[1]["kind"], found[1]["size"]) == ("photo", [40, 30])
    assert (found[2]["kind"], found[2]["frames"]) == ("video", 10)
    assert main(["folder", "trip", "--json"]) == 3
    assert [r["status"] for r in records(capsys)] == ["skipped", "skipped", "failed"]


def test_the_summary_names_every_failure_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "day1/x.jpg"):
        (Path("trip") / name).write_bytes(b"not a picture")
    assert main(["folder", "trip", "-r"]) == 3
    lines = capsys.readouterr().err.splitlines()
    summary = lines[next(i for i, line in enumerate(lines) if line.startswith("trip_dehazed: ")) :]
    assert summary[0].startswith("trip_dehazed: 2 done, 2 failed, ")
    assert [line.split(" is not a picture")[0] for line in summary[1:]] == [
        *("  failed: trip/a.jpg", "  failed: trip/day1/x.jpg")
    ]


def test_status_1_if_all_fail() -> None:
    for name in ("a.jpg", "b.png"):
        (Path("trip") / name).write_bytes(b"not a picture")
    assert main(["folder", "trip"]) == 1


def test_a_second_run_has_nothing_to_do_and_needs_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["folder", "trip"]) == 0
    monkeypatch.setenv("DEHAZE_MODEL", "none.safetensors")
    capsys.readouterr()
    assert main(["folder", "trip"]) == 0
    assert capsys.readouterr().err.startswith("trip_dehazed: 0 done, 2 there already, ")
    assert main(["folder", "trip", "-y"]) == 4


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "--dry-run", "--glob", "*.png", "-f", "jpg"]) == 0
    assert capsys.readouterr().err == "would write: trip_dehazed/b.jpg from trip/b.png\n"
    assert main(["folder", "trip", "--dry-run", "-m", "none.safetensors"]) == 4
    assert not Path("trip_dehazed").exists()


def test_format_quality_and_compare(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["folder", "trip", "-o", "out", "-f", "webp", "--quality", "50", "--compare", "--json"]
    assert main(arguments) == 0
    assert tree("out") == ["a.webp", "a_compare.webp", "b.webp", "b_compare.webp"]
    assert records(capsys)[0]["compare"] == "out/a_compare.webp"
    with Image.open("out/a.webp") as image:
        assert image.format == "WEBP"


def test_a_gallery_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "-r", "--glob", "day1/*"]) == 0
    assert main(["folder", "trip", "-r", "--gallery"]) == 0
    text = Path("trip_dehazed/gallery.html").read_text()
    assert all(f"<figcaption>{name}</figcaption>" in text for name in ("a.jpg", "b.png", "day1/x.jpg"))
    assert "gallery: trip_dehazed/gallery.html" in capsys.readouterr().err


def test_shards_do_their_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "-r", "--shard", "1/2"]) == 0
    assert tree() == ["a.jpg", "day1/x.jpg"]
    assert main(["folder", "trip", "-r", "--shard", "2/2"]) == 0
    assert tree() == ["a.jpg", "b.png", "day1/x.jpg", "day2/x.jpg"]


def test_nothing_to_do_is_said_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    Path("none").mkdir()
    Path("none/notes.txt").write_text("x")
    assert main(["folder", "none"]) == 0
    said = capsys.readouterr().err
    assert "warning: there is nothing to do in none: no photos or videos (-r looks" in said
    assert "note: left alone, as neither photos nor videos: 1 .txt" in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 1, "there is no directory nowhere"),
        (["trip/a.jpg"], 2, "trip/a.jpg is a file, expected a directory"),
        (["trip", "-o", "trip"], 2, "the output trip is the input itself"),
        (["trip", "-o", "trip/a.jpg"], 2, "the output trip/a.jpg is a file"),
        (["trip", "--shard", "3/2"], 2, "--shard is '3/2', expected I/N"),
        (["trip", "-m", "none.safetensors"], 4, "none.safetensors"),
        (["trip", "--resolution", "big"], 2, "--resolution"),
    ],
)
def test_what_goes_wrong_before_any_work(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(".")
    assert main(["folder", *arguments]) == status
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert tree(".") == before


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_killed_and_started_again(number: signal.Signals, status: int) -> None:
    """At whatever moment it ends, the same command does the rest and leaves no half file."""
    for index in range(60):
        make(f"many/{index:03d}.png", size=(300, 200))
    script = "import sys; from dehaze.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "folder", "trip/many"], stderr=subprocess.PIPE, text=True
    )
    output = Path("trip/many_dehazed")
    while len(list(output.glob("*"))) < 8:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    whole = [path for path in output.iterdir() if path.suffix == ".png"]
    assert 8 <= len(whole) + len(list(output.glob(".*"))) < 60
    if number == signal.SIGINT:
        assert "the same command goes on from there" in said
    if number != signal.SIGKILL:
        assert list(output.glob(".*")) == []
    written = {path: path.stat().st_mtime_ns for path in whole}
    assert main(["folder", "trip/many", "-q"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [f"{i:03d}.png" for i in range(60)]
    assert all(path.stat().st_mtime_ns == moment for path, moment in written.items())
    for path in output.iterdir():
        with Image.open(path) as image:
            image.load()


def test_only_without_overwriting_does_the_same_command_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> Iterator[Any]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr("dehaze.folder.dehaze_folder", stopped)
    make("few/a.png")
    note = "note: stopped with 1 of 1 files to do"
    for flags, end in (([], "; the same command goes on from there"), (["-y"], "")):
        assert main(["folder", "trip/few", *flags]) == 130
        assert f"{note}{end}\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[""], ["trip", "-o", ""]])
def test_an_empty_name_is_not_the_current_directory(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["folder", *arguments, "-y"]) == 2
    assert "name is empty" in capsys.readouterr().err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["trip"]


def test_an_output_that_leads_back_to_an_original_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trip_dehazed").mkdir()
    Path("trip_dehazed/a.jpg").symlink_to("../trip/a.jpg")
    original = Path("trip/a.jpg").read_bytes()
    assert main(["folder", "trip", "-y"]) == 2
    assert (
        "the output trip_dehazed/a.jpg of trip/a.jpg and the original trip/a.jpg are one"
        in capsys.readouterr().err
    )
    assert Path("trip/a.jpg").read_bytes() == original


def test_the_root_directory_has_no_place_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "/", "--dry-run"]) == 2
    assert "there is no place beside / for the output" in capsys.readouterr().err


def test_bits_that_the_format_lacks_are_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "-f", "jpg", "--bit-depth", "16"]) == 2
    assert "JPEG does not hold 16 bits" in capsys.readouterr().err
    assert not Path("trip_dehazed").exists()


def test_a_dry_run_fails_where_the_run_would(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["folder", "trip", "--dry-run"], ["folder", "trip"]):
        assert main([*command, "--bit-depth", "16", "--json"]) == 3
        failed, *rest = records(capsys)
        assert (failed["input"], failed["status"], failed["exit_status"]) == ("trip/a.jpg", "failed", 2)
        assert [record["input"] for record in rest] == ["trip/b.png"]


def test_a_directory_that_cannot_be_listed_is_said_in_any_case(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "day1":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for more in (["--dry-run"], []):
        assert main(["folder", "trip", "-r", "-q", "--json", *more]) == 3
        streams = capsys.readouterr()
        assert streams.err.startswith("error: trip/day1 cannot be listed: Permission denied\nhint: ")
        failed = next(r for r in map(json.loads, streams.out.splitlines()) if r["status"] == "failed")
        assert (failed["input"], failed["exit_status"]) == ("trip/day1", 1)
        assert failed["hint"]
        assert streams.err.count("error: ") == 1


def test_a_gallery_of_nothing_and_of_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["folder", "empty", "--gallery"]) == 0
    Path("odd").mkdir()
    Path("trip/a.jpg").rename(os.fsdecode(b"odd/caf\xe9.jpg"))
    assert main(["folder", "odd", "--gallery"]) == 0
    assert "caf?.jpg" in Path("odd_dehazed/gallery.html").read_text(encoding="utf-8")


def test_what_an_earlier_run_left_under_a_name_that_is_shared_now_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["folder", "trip", "-f", "png"]) == 0
    make("a.png")
    capsys.readouterr()
    assert main(["folder", "trip", "-f", "png"]) == 0
    assert "note: trip_dehazed/a.png is from an earlier run: several files share that name now" in (
        capsys.readouterr().err
    )
    assert tree() == ["a.png", "a_jpg.png", "a_png.png", "b.png"]


def test_a_gallery_that_cannot_be_written_is_named_after_what_was_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_gallery: object, path: Path, *_words: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"{path.parent}/.1234.part")

    monkeypatch.setattr("dehaze.gallery.Gallery.write", full)
    assert main(["folder", "trip", "--gallery"]) == 1
    summary, error = capsys.readouterr().err.splitlines()
    assert summary.startswith("trip_dehazed: 2 done, ")
    assert error == "error: trip_dehazed/gallery.html cannot be written: No space left on device"


def test_a_choice_that_leaves_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "trip", "--glob", "*.bmp"]) == 0
    assert "no photos or videos that --glob and --shard choose" in capsys.readouterr().err
