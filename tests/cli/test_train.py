"""`dehaze train` and `dehaze distill` from end to end on data made here; what they refuse and how."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dehaze.cli import main
from dehaze.data.pairs import PairSource
from dehaze.training.session import LOCK
from dehaze.weights.checkpoint import read_header

TINY = ["--set", "stages=[{sizes=[[16, 24]], batch=2, steps=2}]", "--set", "validate_every=1"]
TINY_LITE = [*TINY, "--set", "model={widths=[4, 4], blocks=[1, 1]}", "--set", "precision=fp32"]
QUIET = ["--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def reside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RESIDE's training layout with four tiny scenes, and depth to make haze with."""
    root = tmp_path_factory.mktemp("RESIDE")
    draw = np.random.default_rng(0)
    for folder in ("ITS/clear", "ITS/hazy", "SOTS/indoor/gt", "SOTS/indoor/hazy", "depth"):
        (root / folder).mkdir(parents=True)
    for scene in range(1, 5):
        clear = cv2.resize(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8), (48, 32))
        hazy = (clear * 0.5 + 127).astype(np.uint8)
        cv2.imwrite(str(root / f"ITS/clear/{scene}.png"), clear)
        cv2.imwrite(str(root / f"ITS/hazy/{scene}_1_0.9.png"), hazy)
        cv2.imwrite(str(root / f"SOTS/indoor/gt/140{scene}.png"), clear)
        cv2.imwrite(str(root / f"SOTS/indoor/hazy/140{scene}_1.png"), hazy)
        ramp = np.linspace(20, 255, 32, dtype=np.uint8)[:, None].repeat(48, 1)
        cv2.imwrite(str(root / f"depth/{scene}.png"), ramp)
    return root


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_teacher_then_distillation_then_a_picture(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher"
    crops = ["--set", "model={d=6, s=3, m=1}", *TINY]
    assert main(["train", "teacher", "--data", str(reside), "-o", str(teacher), *crops, *QUIET]) == 0
    assert [e["step"] for e in events(capsys) if e["event"] == "validation"] == [1, 2]

    student = tmp_path / "student"
    lesson = ["distill", "--student", "lite", "--data", str(reside), "-o", str(student), "--projections"]
    lesson += ["--teacher", str(teacher / "best.safetensors"), *TINY_LITE, *QUIET]
    assert main(lesson) == 0
    done = events(capsys)[-1]
    assert (done["event"], done["reason"], done["step"]) == ("done", "finished", 2)
    header = read_header(student / "best.safetensors")
    assert header.recipe["task"] == "distill"
    assert header.data["identity"]["kind"] == "pairs"
    assert (student / "best.extras.safetensors").is_file()
    assert "dehaze run foggy.jpg -m" in (student / "best.md").read_text()

    picture = reside / "SOTS/indoor/hazy/1401_1.png"
    clear = tmp_path / "clear.png"
    assert main(["run", str(picture), "-o", str(clear), "-m", str(student / "best.safetensors"), "-q"]) == 0
    assert cv2.imread(str(clear)).shape == (32, 48, 3)


def test_the_same_command_goes_on(reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "lite", "--clear", str(reside / "ITS/clear"), "--depth", str(reside / "depth")]
    command += ["--val", str(reside / "SOTS/indoor"), "-o", str(tmp_path / "run"), *TINY_LITE, *QUIET]
    assert main([*command, "--max-minutes", "0"]) == 0
    first = events(capsys)
    assert (first[-1]["reason"], first[-1]["step"]) == ("time", 1)
    assert main(command) == 0
    second = events(capsys)
    assert {"event": "resume", "step": 1, "steps": 2} in second
    assert (second[-1]["reason"], second[-1]["step"]) == ("finished", 2)
    log = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in log if e["event"] == "validation"] == [1, 2]

    assert main([*command, "--lr", "0.1"]) == 1
    assert "optimiser.lr: 0.002 -> 0.1" in capsys.readouterr().err
    assert main([*command, "--no-resume"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_resumed_run_computes_as_one_that_began_with_a_validation(
    reside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dehazing settles threads and denormals for the whole process; so must a run that goes on, at once."""
    monkeypatch.setattr("dehaze.device.available_cpus", lambda: 1)
    batch, seen = PairSource.batch, list[tuple[int, float]]()

    def watched(self: PairSource, *arguments: Any) -> dict[str, torch.Tensor]:
        seen.append((torch.get_num_threads(), float(torch.tensor(1e-40) * 1)))
        return batch(self, *arguments)

    monkeypatch.setattr(PairSource, "batch", watched)
    command = ["train", "lite", "--data", str(reside), "-o", str(tmp_path), *TINY_LITE, *QUIET]
    threads = torch.get_num_threads()
    try:
        for more in (["--max-minutes", "0"], []):
            torch.set_num_threads(2)
            torch.set_flush_denormal(False)
            assert main([*command, *more]) == 0
    finally:
        torch.set_num_threads(threads)
    assert len(seen) >= 2
    assert set(seen) == {(1, 0.0)}


def test_bf16_without_the_arithmetic_is_said_and_computed_in_fp32(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old processor's run in bf16 ends with the very weights of one in fp32."""
    monkeypatch.setattr("dehaze.device.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    weights = {}
    for asked in ("bf16", "fp32"):
        command = ["train", "lite", "--data", str(reside), "-o", str(tmp_path / asked), *TINY_LITE]
        assert main([*command, "--set", f"precision={asked}", *QUIET]) == 0
        assert ("fp32 is used instead" in capsys.readouterr().err) == (asked == "bf16")
        weights[asked] = load_file(tmp_path / asked / "best.safetensors")
    assert all(torch.equal(weights["bf16"][name], weights["fp32"][name]) for name in weights["fp32"])


_HOLD = """
import filelock, sys
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_left_alone(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = ["train", "lite", "--data", str(reside), "-o", str(folder), *TINY_LITE, *QUIET]
    holder = [sys.executable, "-c", _HOLD, str(folder / LOCK)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert main(command) == 2
        assert f"another process trains in {folder}" in capsys.readouterr().err
        assert [file.name for file in folder.iterdir()] == [LOCK]
        other.kill()
    assert main(command) == 0


def test_dry_run_tells_and_writes_nothing(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "lite", "--data", str(reside), "--dry-run", *TINY_LITE, *QUIET]) == 0
    (told,) = events(capsys)
    assert told["steps"] == 2
    assert told["output"] == "runs/student-lite"
    assert isinstance(told["data"], dict)
    assert told["data"]["kind"] == "pairs"
    assert isinstance(told["seconds"], float)
    assert told["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_settings_of_made_haze_are_not_told_where_pairs_have_theirs(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "lite", "--data", str(reside), "--dry-run", *TINY_LITE, "--set", "kept_share=0.2"]
    assert main(command) == 0
    told, warned = capsys.readouterr()
    assert "kept_share: no effect on --data" in warned
    assert "precision = " in told
    assert "kept_share = " not in told
    clear = ["--clear", str(reside / "ITS" / "clear"), "--depth", "pseudo"]
    assert main([*command, *clear]) == 0
    told, warned = capsys.readouterr()
    assert "no effect" not in warned
    assert "kept_share = 0.2" in told


def test_an_output_that_is_a_file_is_refused(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("mine")
    command = ["train", "lite", "--data", str(reside), "-o", str(tmp_path / "run"), *TINY_LITE, *QUIET]
    for more in (["--dry-run"], []):
        assert main([*command, *more]) == 2
        assert "is a file, expected a directory" in capsys.readouterr().err


def test_pseudo_depth_needs_only_photos(reside: Path, tmp_path: Path) -> None:
    command = ["train", "lite", "--clear", str(reside / "ITS/clear"), "--depth", "pseudo"]
    command += ["--set", "haze=mixed", "--set", "clear_share=0.2", "-o", str(tmp_path), *TINY_LITE, *QUIET]
    assert main(command) == 0
    identity = read_header(tmp_path / "best.safetensors").data["identity"]
    assert identity["depth"] == "drawn"
    photos = len(list((reside / "ITS/clear").iterdir()))
    assert identity["frames"] == photos - 1  # one is held out, with every layout of it


def test_start_from_a_checkpoint(reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "lite", "--data", str(reside), *TINY_LITE, *QUIET]
    assert main([*command, "-o", str(tmp_path / "a")]) == 0
    begin = str(tmp_path / "a" / "best.safetensors")
    assert main([*command, "-o", str(tmp_path / "b"), "--init", begin]) == 0
    other = ["train", "lite", "--data", str(reside), *TINY, "-o", str(tmp_path / "c"), "--init", begin]
    assert main([*other, *QUIET]) == 2
    assert "another shape" in capsys.readouterr().err


def test_pairs_and_clear_pictures_mix(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "lite", "--data", str(reside), "--clear", str(reside / "ITS/clear")]
    command += ["--depth", str(reside / "depth"), "-o", str(tmp_path), *TINY_LITE, *QUIET]
    assert main([*command, "--share", "1", "--share", "1", "--max-minutes", "0"]) == 0
    identity = events(capsys)[0]
    assert (identity["0.kind"], identity["1.kind"]) == ("pairs", "clear+depth")
    assert main([*command, "--share", "1", "--share", "3"]) == 1
    assert "shares: [1.0, 1.0] -> [1.0, 3.0]" in capsys.readouterr().err


def test_other_validation_pictures_are_refused_on_resume(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "lite", "--data", str(reside), "-o", str(tmp_path), *TINY_LITE, *QUIET]
    assert main([*command, "--max-minutes", "0"]) == 0
    assert main([*command, "--val", str(reside / "SOTS/indoor")]) == 1
    said = capsys.readouterr().err
    assert "validation.held out:" in said
    assert "validation.indoor:" in said


def test_what_is_trained_wins_over_the_recipe(reside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "stages=[{sizes=[[16, 24]], batch=2, steps=2}]", "--data", str(reside), "--dry-run"]
    for what, task in (("student", "dehaze"), ("teacher", "super-resolution")):
        assert main(["train", what, "--recipe", "paper", *small, *QUIET]) == 0
        (told,) = events(capsys)
        recipe = told["recipe"]
        assert isinstance(recipe, dict)
        assert (recipe["task"], recipe["architecture"]) == (task, what)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the data"),
        (["--data", "{reside}", "--share", "1", "--share", "2"], "2 --share were given for 1 folders"),
        (["--data", "{reside}", "--set", "validate_every=0"], "validate_every and"),
        (["--data", "{reside}", "--set", "stages=[]"], "at least one stage"),
        (["--clear", "{reside}/ITS/clear"], "each --clear DIR needs its --depth DIR"),
        (["--data", "{reside}", "--set", "loss"], "--set takes KEY=VALUE, got 'loss'"),
        (["--data", "{reside}", "--set", "lost=l1"], "no setting 'lost'"),
        (["--data", "{reside}", "--recipe", "nope"], "unknown recipe 'nope'"),
        (["--data", "{reside}", "--variant", "fsrcnn"], "--variant and --scale are for"),
        (["--data", "{reside}", "--scale", "0"], "--variant and --scale are for"),
        (["--data", "{reside}", "--set", "model=5"], "expected a table, got 5"),
        (["--data", "{reside}", "--set", "stages=[{}]", "--steps", "3"], "steps or epochs above 0"),
    ],
)
def test_refusals(
    reside: Path, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.replace("{reside}", str(reside)) for a in arguments]
    bounded = ["-o", str(tmp_path / "run"), "--max-minutes", "0"]  # for what is not refused after all
    assert main(["train", "student", *filled, *bounded]) == 2
    assert said in capsys.readouterr().err


def test_broken_data_is_reported_before_training(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("clear", "hazy"):
        (tmp_path / "ITS" / part).mkdir(parents=True)
    for scene in (1, 2):
        (tmp_path / f"ITS/hazy/{scene}_1_0.9.png").write_bytes((reside / "ITS/hazy/1_1_0.9.png").read_bytes())
    (tmp_path / "ITS/clear/1.png").write_bytes((reside / "ITS/clear/1.png").read_bytes())
    run = tmp_path / "run"
    assert main(["train", "lite", "--data", str(tmp_path), "-o", str(run), *TINY_LITE]) == 1
    said = capsys.readouterr().err
    assert "2_1_0.9.png" in said
    assert "expected" in said
    assert not run.exists()


def test_a_dehazing_network_is_no_teacher(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "lite", "--data", str(reside), "-o", str(tmp_path / "l"), *TINY_LITE, *QUIET]) == 0
    command = ["distill", "--data", str(reside), "--teacher", str(tmp_path / "l" / "best.safetensors"), *TINY]
    assert main([*command, "-o", str(tmp_path / "d")]) == 2
    assert "is not a super-resolution teacher" in capsys.readouterr().err


def test_the_network_can_be_named_by_option(reside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", str(reside), "--dry-run", *TINY, *QUIET]
    assert main([*command, "--model", "aod-net"]) == 0
    assert events(capsys)[0]["parameters"] == 1_761
    assert main(command) == 2
    assert "nothing named to train: expected one of teacher, student" in capsys.readouterr().err
    assert main(["train", "lite", *command[1:], "--model", "aod-net"]) == 2
    assert "told to train 'lite' and --model 'aod-net'" in capsys.readouterr().err


def test_teacher_variants_reach_the_network(reside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "teacher", "--data", str(reside), "--dry-run", *TINY, *QUIET]
    for variant, count in (("fsrcnn", 24_683), ("relu-mc-fsrcnn", 37_911)):
        assert main([*command, "--variant", variant, "--scale", "4"]) == 0
        (told,) = events(capsys)
        assert told["parameters"] == count
        assert isinstance(told["recipe"], dict)
        assert told["recipe"]["model"]["scale"] == 4


def test_other_depth_or_another_start_cannot_be_gone_on_with(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "depth"
    other.mkdir()
    for path in (reside / "depth").iterdir():
        cv2.imwrite(
            str(other / path.name), np.random.default_rng(0).integers(1, 255, (32, 48), dtype=np.uint8)
        )
    run = ["--val", str(reside / "SOTS/indoor"), "-o", str(tmp_path / "run"), *TINY_LITE, *QUIET]
    start = ["train", "lite", "--clear", str(reside / "ITS/clear"), "--depth"]
    assert main([*start, str(reside / "depth"), *run, "--max-minutes", "0"]) == 0
    assert main([*start, str(other), *run]) == 1
    assert "data.sha256" in capsys.readouterr().err
    initial = ["--init", str(tmp_path / "run" / "last.safetensors")]
    assert main([*start, str(reside / "depth"), *run, *initial]) == 1
    assert "initial" in capsys.readouterr().err


def test_two_validation_folders_of_one_name_both_count(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "indoor"
    shutil.copytree(reside / "SOTS/indoor", copy)
    command = [
        "train",
        "lite",
        "--data",
        str(reside),
        "--val",
        str(copy),
        "--val",
        str(reside / "SOTS/indoor"),
    ]
    assert main([*command, "-o", str(tmp_path / "run"), *TINY_LITE, *QUIET]) == 0
    judged = next(e for e in events(capsys) if e["event"] == "validation")
    assert {f"psnr/{copy}", f"psnr/{reside / 'SOTS/indoor'}"} <= judged.keys()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--set", "model.foo=1"], "cannot be built"),
        (["--set", "model.widths=[8]"], "cannot be built"),
        (["--share", "0", "--share", "0"], "--share is 0.0, 0.0"),
        (["--share", "nan", "--share", "2"], "--share is nan, 2.0"),
        (["--share", "-1", "--share", "2"], "--share is -1.0, 2.0"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], said: str
) -> None:
    command = ["train", "lite", "--data", str(reside), "--data", str(reside), "-o", str(tmp_path / "run")]
    assert main([*command, *TINY, "--device", "cpu", *extra]) == 2
    assert said in capsys.readouterr().err


def test_a_refused_resume_leaves_the_folder_as_it_was(
    reside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "lite", "--data", str(reside), "-o", str(run), *TINY_LITE, *QUIET]
    assert main([*command, "--max-minutes", "0"]) == 0

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = files()
    assert main([*command, "--seed", "7"]) == 1
    assert "seed: " in capsys.readouterr().err
    assert files() == before


def test_a_dry_run_refuses_what_the_run_would(reside: Path, tmp_path: Path) -> None:
    command = ["train", "lite", "--data", str(reside), "-o", str(tmp_path / "run"), *TINY_LITE, *QUIET]
    assert main([*command, "--max-minutes", "0"]) == 0
    assert main([*command, "--no-resume", "--dry-run"]) == 2
