"""`dehaze run` as a stranger uses it, with a network of random weights."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dehaze.cli import main
from dehaze.dehazer import Dehazer, from_name
from dehaze.models import build
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint
from making import wild

WORKING_SIZE = 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    header = Header(name="toy", architecture="lite", working_size=WORKING_SIZE)
    # Fresh weights dehaze nothing at all: their last layer is zero.
    tensors = {
        name: value + 0.01 * torch.randn(value.shape) for name, value in build("lite").state_dict().items()
    }
    save_checkpoint(path, tensors, header)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEHAZE_MODEL", str(checkpoint))
    monkeypatch.setenv("DEHAZE_DEVICE", "cpu")


def make(name: str, size: tuple[int, int] = (40, 30), **settings: Any) -> np.ndarray:
    """Write a picture of smooth colours and return its pixels as the file holds them."""
    width, height = size
    x, y = np.meshgrid(np.linspace(60, 200, width), np.linspace(0, 50, height))
    pixels = np.stack([x, x * 0.5 + y, 255 - x + y * 0.2], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(name, **settings)
    return pixels_of(name)


def pixels_of(name: str | Path) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"))


def files() -> list[str]:
    return sorted(str(path.relative_to(Path.cwd())) for path in Path.cwd().rglob("*") if path.is_file())


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_writes_the_networks_answer_beside_the_input(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hazy = make("foggy.png")
    assert main(["run", "foggy.png"]) == 0
    assert files() == ["foggy.png", "foggy_dehazed.png"]
    answer = from_name(str(checkpoint), device="cpu")(hazy)
    assert not np.array_equal(answer, hazy)
    np.testing.assert_array_equal(pixels_of("foggy_dehazed.png"), answer)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert re.fullmatch(r"foggy\.png -> foggy_dehazed\.png  \d+\.\d\d s\n", streams.err)


def test_several_into_a_directory() -> None:
    make("a.png")
    make("b.jpg")
    assert main(["run", "a.png", "b.jpg", "-o", "clear/"]) == 0
    assert files() == ["a.png", "b.jpg", str(Path("clear/a.png")), str(Path("clear/b.jpg"))]


def test_json_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png", (64, 48))
    assert main(["run", "a.png", "--json", "--compare"]) == 0
    (record,) = records(capsys)
    assert record.pop("seconds") >= 0
    assert record == {
        "input": "a.png",
        "output": "a_dehazed.png",
        "compare": "a_compare.png",
        "size": [64, 48],
        "working_size": [32, 24],
        "model": "toy",
        "device": "cpu",
        "precision": "fp32",
        "notices": [],
    }


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    assert main(["run", "a.png", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_tells_sizes_model_and_device(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png", (64, 48))
    assert main(["run", "a.png", "-v"]) == 0
    assert "64 x 48 pixels, the network looked at 32 x 24; toy on cpu, fp32" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(24, 18), (100, 75)])
def test_strength_0_gives_back_the_input(size: tuple[int, int]) -> None:
    hazy = make("a.png", size)
    assert main(["run", "a.png", "--strength", "0"]) == 0
    np.testing.assert_array_equal(pixels_of("a_dehazed.png"), hazy)


def test_strength_mixes() -> None:
    hazy = make("a.png", (24, 18)).astype(float)
    for strength in ("0.5", "1"):
        assert main(["run", "a.png", "--strength", strength, "-o", f"{strength}.png"]) == 0
    whole, half = pixels_of("1.png"), pixels_of("0.5.png")
    assert np.abs(half - (hazy + whole) / 2).max() <= 1


def test_compare_shows_before_and_after() -> None:
    hazy = make("a.png")
    assert main(["run", "a.png", "--compare"]) == 0
    both = pixels_of("a_compare.png")
    np.testing.assert_array_equal(both[:, :40], hazy)
    np.testing.assert_array_equal(both[:, -40:], pixels_of("a_dehazed.png"))


def test_stdin_to_stdout(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    make("a.png")
    assert main(["run", "a.png", "-q"]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("a.png").read_bytes())))
    assert main(["run", "-"]) == 0
    streams = capfdbinary.readouterr()
    assert streams.out == Path("a_dehazed.png").read_bytes()
    assert streams.err.startswith(b"stdin -> stdout  ")


def test_stdout_in_another_format(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    make("a.png")
    assert main(["run", "a.png", "-o", "-", "-f", "webp"]) == 0
    assert Image.open(io.BytesIO(capfdbinary.readouterr().out)).format == "WEBP"


def test_nothing_but_pictures_on_stdout_if_they_go_there(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    assert main(["run", "a.png", "-o", "-", "--json"]) == 2
    assert main(["run", "a.png", "-o", "-", "--compare"]) == 2


def test_no_picture_to_or_from_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.png")
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["run", "a.png", "-o", "-"]) == 2
    assert "stdout" in capsys.readouterr().err
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for stdin in (terminal, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["run", "-", "-o", "c.png"]) == 2
        assert "no picture on stdin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name", "format"),
    [
        (["-f", "png"], "a_dehazed.png", "PNG"),
        (["-f", "jpg"], "a_dehazed.jpg", "JPEG"),
        (["-f", "tiff", "-o", "out/"], "out/a.tiff", "TIFF"),
        (["-o", "x.webp"], "x.webp", "WEBP"),
        ([], "a_dehazed.jpg", "JPEG"),
    ],
)
def test_formats(arguments: list[str], name: str, format: str) -> None:
    make("a.jpg")
    assert main(["run", "a.jpg", *arguments]) == 0
    with Image.open(name) as image:
        assert image.format == format


@pytest.mark.parametrize("arguments", [[], ["-f", "same"]])
def test_a_name_does_not_lie(arguments: list[str]) -> None:
    make("a.jpg")
    Path("a.jpg").rename("bare")
    make("b.webp")
    Path("b.webp").rename("b.png")
    assert main(["run", "bare", "b.png", *arguments]) == 0
    assert main(["run", "bare", *arguments, "-o", "out/"]) == 0
    for name, format in (("bare_dehazed.jpg", "JPEG"), ("out/bare.jpg", "JPEG"), ("b_dehazed.png", "PNG")):
        with Image.open(name) as image:
            assert image.format == format


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in directories on Windows")
def test_a_pipe_is_not_looked_into_beforehand() -> None:
    make("a.jpg")
    os.mkfifo("pipe")
    assert main(["run", "pipe", "--dry-run"]) == 0
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("a.jpg").read_bytes()))
    writer.start()
    assert main(["run", "pipe", "-o", "b.jpg"]) == 0
    writer.join()


def test_an_output_without_an_ending_is_of_the_format_that_was_read() -> None:
    make("a.webp")
    assert main(["run", "a.webp", "-f", "same", "-o", "bare"]) == 0
    with Image.open("bare") as image:
        assert image.format == "WEBP"


def test_quality_makes_files_smaller() -> None:
    make("a.jpg", (200, 150))
    assert main(["run", "a.jpg", "--quality", "95", "-o", "fine.jpg"]) == 0
    assert main(["run", "a.jpg", "--quality", "10", "-o", "coarse.jpg"]) == 0
    assert Path("coarse.jpg").stat().st_size < Path("fine.jpg").stat().st_size


def test_metadata_is_kept_or_stripped() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera Maker"
    make("a.jpg", exif=exif)
    assert main(["run", "a.jpg", "-o", "kept.jpg"]) == 0
    assert main(["run", "a.jpg", "-o", "bare.jpg", "--metadata", "strip"]) == 0
    with Image.open("kept.jpg") as kept, Image.open("bare.jpg") as bare:
        assert kept.getexif()[0x010F] == "Camera Maker"
        assert 0x010F not in bare.getexif()


def test_bit_depth() -> None:
    make("a.png")
    assert main(["run", "a.png", "--bit-depth", "16"]) == 0
    assert Path("a_dehazed.png").read_bytes()[24] == 16  # IHDR: bits a sample


def test_what_cannot_be_written_is_refused_before_a_directory_is_made() -> None:
    make("a.jpg")
    assert main(["run", "a.jpg", "-o", "new/", "--bit-depth", "16"]) == 2
    assert not Path("new").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="/dev/full")
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_the_work_is_done_where_nothing_can_be_said(stderr: str) -> None:
    make("a.png")
    make("b.png")
    command = f"{sys.executable} -m dehaze run a.png missing.png b.png --json {stderr}"
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert [json.loads(line).get("output") for line in done.stdout.splitlines()] == [
        "a_dehazed.png",
        None,
        "b_dehazed.png",
    ]
    assert files() == ["a.png", "a_dehazed.png", "b.png", "b_dehazed.png"]


def bad_inputs() -> Iterator[str]:
    make("good.jpg")
    jpeg = Path("good.jpg").read_bytes()
    Path("good.jpg").unlink()
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("not a picture")
    Path("cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    Path("folder.jpg").mkdir()
    yield from ("empty.jpg", "text.jpg", "cut.jpg", "folder.jpg", "missing.jpg")


def test_each_bad_input_is_one_sentence_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    for name in bad_inputs():
        before = files()
        assert main(["run", name]) == 1
        streams = capsys.readouterr()
        assert streams.out == ""
        assert streams.err.startswith("error: ")
        assert name in streams.err
        assert streams.err.count("error:") == 1
        assert "bug" not in streams.err
        assert files() == before


def test_the_limit_of_pixels_names_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png", (40, 30))
    assert main(["run", "a.png", "--max-pixels", "1199"]) == 1
    assert "--max-pixels" in capsys.readouterr().err
    assert main(["run", "a.png", "--max-pixels", "1200"]) == 0


def test_some_inputs_failed(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    make("c.png")
    assert main(["run", "a.png", "b.png", "c.png", "--json"]) == 3
    streams = capsys.readouterr()
    lines = [json.loads(line) for line in streams.out.splitlines()]
    assert [line["input"] for line in lines] == ["a.png", "b.png", "c.png"]
    assert [line.get("output") for line in lines] == ["a_dehazed.png", None, "c_dehazed.png"]
    assert "b.png" in lines[1]["error"]
    assert lines[1]["exit_status"] == 1
    assert streams.err.startswith("error: ")
    assert streams.err.endswith("error: 1 of 3 inputs failed\n")
    assert files() == ["a.png", "a_dehazed.png", "c.png", "c_dehazed.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="names may be longer there")
def test_a_name_too_long_for_its_output_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    make(f"{'x' * 250}.png")
    assert main(["run", f"{'x' * 250}.png", "a.png", "--json"]) == 3
    assert [line.get("exit_status") for line in records(capsys)] == [1, None]
    assert files() == ["a.png", "a_dehazed.png", f"{'x' * 250}.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_a_link_that_leads_to_itself_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    Path("c.png").symlink_to("c.png")
    assert main(["run", "a.png", "c.png", "-o", "out/"]) == 3
    assert "error: c.png cannot be read: Too many levels of symbolic links" in capsys.readouterr().err
    assert Path("out/a.png").is_file()


def test_stdout_that_cannot_be_written_ends_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.png")
    make("b.png")

    def full(_text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.stdout, "write", full)
    assert main(["run", "a.png", "b.png", "--json"]) == 1
    assert capsys.readouterr().err == "error: stdout cannot be written: No space left on device\n"
    assert files() == ["a.png", "a_dehazed.png", "b.png"]


def test_all_inputs_failed() -> None:
    assert main(["run", "a.png", "b.png"]) == 1


def test_fail_fast_stops_at_the_first_failure() -> None:
    make("c.png")
    assert main(["run", "b.png", "c.png", "--fail-fast"]) == 1
    assert files() == ["c.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--device", "warp"], 2, "warp"),
        (["--precision", "fp16"], 2, "fp16"),
        (["--precision", "int3"], 2, "int3"),
        (["--resolution", "huge"], 2, "--resolution"),
        (["--resolution", "0"], 2, "--resolution"),
        (["--tile", "x"], 2, "--tile"),
        (["--strength", "1.5"], 2, "strength"),
        (["--quality", "101"], 2, "quality"),
        (["--format", "xyz"], 2, "format"),
        (["-o", "clear.xyz"], 2, ".xyz"),
        (["-f", "png", "-o", "clear.jpg"], 2, "clear.jpg"),
        (["-o", "a.png"], 2, "itself"),
        (["-o", "there.png"], 2, "already exists"),
        (["-o", "no/such/clear.png"], 2, "directory"),
        (["--model", "missing.safetensors"], 4, "missing.safetensors"),
        (["--model", "no-such-name"], 4, "no-such-name"),
        (["--model", "there.png"], 4, "there.png"),
        (["--model", "pickle.pt"], 4, "pickle"),
    ],
)
def test_refused_before_any_work(
    arguments: list[str],
    status: int,
    word: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dehazer, "__call__", no_work)
    make("a.png")
    make("there.png")
    torch.save({"x": torch.zeros(1)}, "pickle.pt")
    before = {name: Path(name).read_bytes() for name in files()}
    assert main(["run", "a.png", *arguments]) == status
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ")
    assert word in streams.err
    assert {name: Path(name).read_bytes() for name in files()} == before


def no_work(*_arguments: Any, **_settings: Any) -> None:
    raise AssertionError("work was done")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_a_device_that_is_not_there_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.png")
    assert main(["run", "a.png", "--device", "cuda"]) == 2
    assert "CUDA" in capsys.readouterr().err or "NVIDIA" in capsys.readouterr().err


def test_existing_outputs_are_found_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dehaze.weights.load", no_work)
    make("a.png")
    make("b.png")
    make("b_dehazed.png")
    assert main(["run", "a.png", "b.png"]) == 2
    assert "a_dehazed.png" not in files()


def test_overwrite_replaces_the_input_itself() -> None:
    hazy = make("a.png")
    assert main(["run", "a.png", "-o", "a.png", "-y"]) == 0
    assert files() == ["a.png"]
    assert not np.array_equal(pixels_of("a.png"), hazy)


def test_dry_run_does_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dehaze.weights.load", no_work)
    make("a.png")
    assert main(["run", "a.png", "--dry-run", "--compare"]) == 0
    assert capsys.readouterr().err == "would write a_dehazed.png and a_compare.png from a.png\n"
    assert main(["run", "a.png", "--dry-run", "--json"]) == 0
    assert records(capsys) == [{"input": "a.png", "output": "a_dehazed.png", "dry_run": True}]
    assert files() == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-m", "none"], 4, "no model named 'none'"),
        (["-m", "a.png"], 4, "a.png is not a safetensors file"),
        (["-d", "cuda:99"], 2, "device 'cuda:99' is not available"),
        (["--precision", "fp16"], 2, "precision fp16 is not for CPUs"),
        (["--tile", "63"], 2, "--tile is '63': expected auto, off or a number of pixels, at least 64"),
        (["-m", "a.onnx", "--precision", "bf16"], 2, "a.onnx computes in fp32; precision bf16"),
        (["-m", "teacher"], 2, "'teacher' is a super-resolution teacher"),
        (["--bit-depth", "16", "-o", "b.jpg"], 2, "JPEG does not hold 16 bits a sample"),
        (["--bit-depth", "16", "-f", "same", "-o", "clear/"], 2, "WEBP does not hold 16 bits a sample"),
        (["nowhere.png"], 3, "there is no file nowhere.png"),
        (["."], 3, "error: . "),
        (["raw.dng"], 3, "raw.dng"),
        (["text.png"], 3, "text.png is not a picture that dehaze can read"),
    ],
)
def test_dry_run_refuses_what_the_run_would(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a.webp" if "same" in arguments else "a.png"
    make(name)
    Path("text.png").write_text("no picture")
    Path("a.onnx").touch()
    Image.new("RGB", (8, 6)).save("raw.dng", "TIFF")
    for command in (["run", name, "--dry-run"], ["run", name]):
        assert main([*command, *arguments]) == status
        assert message in capsys.readouterr().err


def test_interrupt_leaves_what_is_done_and_no_half_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.png")
    make("b.png")
    replace, calls = Path.replace, []

    def interrupted(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    assert main(["run", "a.png", "b.png"]) == 130
    assert capsys.readouterr().err.endswith("error: interrupted\n")
    assert files() == ["a.png", "a_dehazed.png", "b.png"]
    assert len(calls) == 2


def test_model_flag_goes_before_the_environment(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a.png")
    monkeypatch.setenv("DEHAZE_MODEL", "no-such-name")
    assert main(["run", "a.png"]) == 4
    assert main(["run", "a.png", "-m", str(checkpoint)]) == 0


def test_device_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    make("a.png")
    monkeypatch.setenv("DEHAZE_DEVICE", "warp")
    assert main(["run", "a.png"]) == 2


def test_the_device_is_checked_before_the_model_is_fetched() -> None:
    make("a.png")
    assert main(["run", "a.png", "--device", "warp", "--model", "missing.safetensors"]) == 2


def test_notices_and_warnings_reach_people_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("gray", "white")]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert main(["run", "a.webp", "-o", "a.png", "--json", "--tile", "256"]) == 0
    streams = capsys.readouterr()
    notices = json.loads(streams.out)["notices"]
    assert len(notices) == 1
    assert f"note: a.webp: {notices[0]}\n" in streams.err
    assert "warning: " in streams.err


def test_a_network_without_an_answer_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = make("a.png")
    make("b.png")
    assert main(["run", "a.png", "b.png", "-m", str(wild(Path("wild.safetensors")))]) == 0
    assert capsys.readouterr().err.count("warning: model 'wild' has no answer") == 1
    assert np.array_equal(pixels_of("a_dehazed.png"), before)
    assert main(["run", "a.png", "b.png", "-y"]) == 0
    assert "warning" not in capsys.readouterr().err
