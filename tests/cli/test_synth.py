"""`dehaze synth` writes a data set that the rest of the tool finds, and refuses what cannot be done."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dehaze.cli import main


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """--clear and --depth of three small pictures."""
    rng = np.random.default_rng(0)
    for name, shape in (("clear", (24, 32, 3)), ("depth", (24, 32))):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            pixels = rng.integers(1, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return ["--clear", str(tmp_path / "clear"), "--depth", str(tmp_path / "depth")]


def test_folders_become_a_data_set(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dehaze.data.reside import discover

    out = tmp_path / "RESIDE"
    assert main(["synth", *folders, "-o", str(out), "--json", "--per-scene", "4"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(out),
        "its": {"scenes": 2, "pictures": 8},
        "sots": {"scenes": 1, "pictures": 10},
        "written": True,
    }
    assert len(discover(out, "train").require_sound()) == 8
    assert len(discover(out, "test").require_sound()) == 10


def test_scenes_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["synth", "--procedural", "1", "--size", "64x48", "--per-scene", "2", "-o", str(tmp_path / "R")]
    assert main(command) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "wrote ITS (1 scenes, 2 hazy pictures)" in streams.err
    with Image.open(tmp_path / "R/ITS/clear/1.png") as picture:
        assert picture.size == (64, 48)


def test_dry_run_writes_nothing(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", *folders, "-o", str(tmp_path / "R"), "--dry-run"]) == 0
    assert "would write ITS (2 scenes, 20 hazy pictures) and SOTS/indoor (1" in capsys.readouterr().err
    assert not (tmp_path / "R").exists()


def test_an_existing_set_needs_overwrite(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["synth", *folders, "--test", "0", "--per-scene", "1", "-o", str(tmp_path / "R")]
    assert main(command) == 0
    for again in (command, [*command, "--dry-run"]):
        assert main(again) == 2
        assert "is not empty" in capsys.readouterr().err
    assert main([*command, "-y", "--dry-run"]) == 0
    assert main([*command, "-y"]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [([], 1, "2.png is 32 x 20 pixels"), (["--border", "12"], 2, "--border 12 leaves nothing")],
)
def test_what_cannot_be_used_is_told_before_the_old_data_set_goes(
    folders: list[str],
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["synth", *folders, "--per-scene", "1", "-o", str(tmp_path / "R"), "-y"]
    assert main(command) == 0
    before = sorted(tmp_path.glob("R/**/*.png"))
    if status == 1:
        Image.new("L", (32, 20), 9).save(tmp_path / "depth/2.png")
    for more in (["--dry-run"], []):
        assert main([*command, *arguments, *more]) == status
        assert message in capsys.readouterr().err
        assert sorted(tmp_path.glob("R/**/*.png")) == before


def test_a_full_disk_names_the_file(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dehaze.data.synth.write_whole", full)
    assert main(["synth", *folders, "-o", str(tmp_path / "R"), "-j", "1"]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/R/ITS/clear/1.png cannot be written: No space left on device\nhint: make room" in said


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "nothing to make haze from"),
        (["--clear", "."], 2, "nothing to make haze from"),
        (["--procedural", "1", "--clear", "."], 2, "leave --clear and --depth away"),
        (["--procedural", "1", "--size", "big"], 2, "--size is 'big'"),
        (["--procedural", "1", "--size", "8x8"], 2, "at least 32 each"),
        (["--procedural", "1", "--test", "2"], 2, "--test is 2 but there are 1 scenes"),
        (["--procedural", "1", "--size", "64x48", "--border", "24"], 2, "--border 24 leaves nothing"),
        (["--textures", "."], 2, "--textures only serves --procedural"),
        (["--clear", ".", "--depth", ".", "--size", "64x48"], 2, "--size only serves --procedural"),
        (["--clear", "nowhere", "--depth", "nowhere"], 1, "no folder at nowhere"),
    ],
)
def test_what_cannot_be_done(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--dry-run"], []):
        assert main(["synth", *arguments, "-o", str(tmp_path / "R"), *more]) == status
        assert message in capsys.readouterr().err
        assert not (tmp_path / "R").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "R").write_text("mine")
    for more in (["--dry-run"], [], ["-y"]):
        assert main(["synth", "--procedural", "1", "-o", str(tmp_path / "R"), *more]) == 2
        assert "is a file, expected a directory" in capsys.readouterr().err
    assert (tmp_path / "R").read_text() == "mine"


def test_what_is_read_is_never_overwritten(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "R"
    assert main(["synth", *folders, "-o", str(out), "--per-scene", "1"]) == 0
    before = sorted(path.read_bytes() for path in out.rglob("*.png"))
    own = ["--clear", str(out / "ITS/clear"), "--depth", str(out / "ITS/depth")]
    assert main(["synth", *own, "-o", str(out), "-y"]) == 2
    assert "is to be read, and is one of the folders that are written" in capsys.readouterr().err
    assert sorted(path.read_bytes() for path in out.rglob("*.png")) == before


def test_a_new_data_set_replaces_all_of_the_old_one(folders: list[str], tmp_path: Path) -> None:
    out = tmp_path / "R"
    assert main(["synth", *folders, "-o", str(out), "--test", "1", "--per-scene", "1"]) == 0
    assert main(["synth", *folders, "-o", str(out), "--test", "0", "--per-scene", "1", "-y"]) == 0
    assert sorted(path.name for path in (out / "ITS/clear").iterdir()) == ["1.png", "2.png", "3.png"]
    assert not (out / "SOTS/indoor/gt").exists()  # scene 3 was a test scene and is now trained on
