from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dehaze.bench.report import read_report
from dehaze.cli import main
from dehaze.models import build
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "lite.safetensors"
    header = Header(name="lite", architecture="lite", working_size=48)
    save_checkpoint(path, build("lite").state_dict(), header)
    return str(path)


@pytest.fixture(scope="module")
def indoor(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("SOTS") / "indoor"
    for folder in ("gt", "hazy"):
        (root / folder).mkdir(parents=True)
    for scene in (1400, 1401):
        clear = np.random.default_rng(scene).integers(0, 180, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(clear.astype(np.uint8)).save(root / f"gt/{scene}.png")
        Image.fromarray((clear // 2 + 127).astype(np.uint8)).save(root / f"hazy/{scene}_5.png")
    return str(root)


def quick(model: str, *more: str) -> list[str]:
    return ["bench", "-m", model, "-d", "cpu", "--size", "64x48", "--seconds", "0", "--no-startup", *more]


def test_a_table_for_people_on_stdout(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(quick(model)) == 0
    shown, said = capsys.readouterr()
    assert said == ""
    assert "PyTorch" in shown.splitlines()[0]
    line = next(line for line in shown.splitlines() if line.startswith("lite "))
    assert line.split()[:7] == ["lite", "64", "x", "48", "48", "x", "36"]
    assert "2 x multiply-accumulates" in shown


def test_what_is_named_twice_is_measured_once(
    model: str, indoor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ["--size", "64x48", "--size", "64x48", "--data", str(indoor), "--data", f"{indoor}/../indoor"]
    flags = ["--no-startup", "--no-references", "--seconds", "0", "--limit", "1", "--json"]
    assert main(["bench", "-m", model, *twice, *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["quality"]) == 1
    assert len({(row["width"], row["height"]) for row in report["cost"]}) == len(report["cost"]) == 1


def test_json_alone_on_stdout_is_a_report(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(quick(model, "--json", "--data", indoor, "--size", "32x32", "--batch-size", "2")) == 0
    shown, said = capsys.readouterr()
    assert (said, shown.count("\n")) == ("", 1)
    (tmp_path / "r.json").write_text(shown)
    report = read_report(tmp_path / "r.json")
    sizes = {(row.width, row.height) for row in report.cost}
    assert sizes == {(64, 48), (32, 32)}
    assert {row.batch for row in report.cost} == {2}
    assert [s.name for s in report.quality[0].rows[0].scores] == ["hazy/1400_5.png", "hazy/1401_5.png"]


def test_reports_are_written_where_asked(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"--csv": "r.csv", "--markdown": "r.md", "--plot": "r.svg", "--html": "r.html"}
    flags = [part for flag, name in names.items() for part in (flag, str(tmp_path / name))]
    assert main(quick(model, "--data", indoor, *flags)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names.values())
    with (tmp_path / "r.csv").open() as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"cost", "quality", "level", "picture"}
    assert "wrote" in capsys.readouterr().err
    assert main(quick(model, "--data", indoor, *flags)) == 2
    assert "already exists" in capsys.readouterr().err


def planted(path: Path, change: float) -> None:
    """Let a report claim a better (or worse) PSNR than was measured."""
    values = json.loads(path.read_text())
    values["quality"][0]["rows"][0]["overall"]["psnr"]["mean"] += change
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(("claim", "status"), [(0.0, 0), (0.1, 0), (0.5, 1), (-0.5, 0)])
def test_a_wrong_claim_is_exit_status_1(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], claim: float, status: int
) -> None:
    arguments = ["bench", "-m", model, "-d", "cpu", "--no-cost", "--data", indoor]
    assert main([*arguments, "--json"]) == 0
    path = tmp_path / "report.json"
    path.write_text(capsys.readouterr().out)
    planted(path, claim)
    assert main([*arguments, "--against", str(path)]) == status
    shown, said = capsys.readouterr()
    assert ("PSNR, dB" in said) == bool(status)
    assert ("lite, indoor" in shown) == bool(claim)


def test_the_tolerance_is_the_users(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "-m", model, "-d", "cpu", "--no-cost", "--data", indoor, "--json"]
    assert main(arguments) == 0
    path = tmp_path / "report.json"
    path.write_text(capsys.readouterr().out)
    planted(path, 0.5)  # 12 % more error
    assert main([*arguments, "--against", str(path), "--tolerance", "0.13"]) == 0
    assert main([*arguments, "--against", str(path), "--tolerance", "0.12"]) == 1
    changes = json.loads(capsys.readouterr().out.splitlines()[-1])["against"]["changes"]
    assert next(c["verdict"] for c in changes if c["figure"] == "PSNR, dB") == "regression"


def test_a_report_with_nothing_in_common_does_not_cost_the_run_its_figures(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "-m", model, "-d", "cpu", "--no-references", "--no-cost", "--data", indoor]
    assert main([*arguments, "--json"]) == 0
    path = tmp_path / "report.json"
    path.write_text(capsys.readouterr().out)
    csv_file = tmp_path / "r.csv"
    other = [*arguments, "--channel", "y", "--against", str(path), "--csv", str(csv_file), "--json"]
    assert main(other) == 1
    shown, said = capsys.readouterr()
    measured, failure = map(json.loads, shown.splitlines())
    assert measured["quality"][0]["channel"] == "y"
    assert "no figure in common" in failure["error"]
    assert json.loads(path.read_text())["command"] in failure["hint"]
    assert "lite: quality on indoor" in said
    assert csv_file.exists()


def test_a_small_tolerance_is_not_rounded_away(
    model: str, indoor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "-m", model, "-d", "cpu", "--no-references", "--no-cost", "--data", indoor]
    assert main([*arguments, "--json"]) == 0
    path = tmp_path / "report.json"
    path.write_text(capsys.readouterr().out)
    assert main([*arguments, "--against", str(path), "--tolerance", "0.005"]) == 0
    assert "nothing got worse by more than 0.5 %" in capsys.readouterr().err


def test_tables_need_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--csv", str(tmp_path / "t.csv"), "--html", str(tmp_path / "t.html")]
    assert main(["bench", "--table", "1", "--table", "3", *flags]) == 0
    shown, said = capsys.readouterr()
    assert f"wrote {tmp_path / 't.csv'}" in said
    assert f"wrote {tmp_path / 't.html'}" in said
    assert "Table 1" in shown
    assert "Table 3" in shown
    assert next(line for line in shown.splitlines() if line.startswith("MC-FSRCNN")).split()[1:4] == [
        "38,420",
        "38,427",
        "40.53",
    ]
    assert "DSCBN-MC-FSRCNN" in (tmp_path / "t.html").read_text()


def test_tables_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--table", "6", "--json"]) == 0
    table: dict[str, Any] = json.loads(capsys.readouterr().out)["tables"][0]
    assert table["rows"][0]["paper"] == {"psnr": 31.9616, "ssim": 0.9508}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--table", "10"], 2, "no table 10"),
        (["--size", "620"], 2, "expected WIDTHxHEIGHT"),
        (["--size", "0x10"], 2, "expected WIDTHxHEIGHT"),
        (["--resolution", "half"], 2, "--resolution is 'half'"),
        (["-m", "no-such-model"], 4, "no model named 'no-such-model'"),
        (["--data", "nowhere"], 1, "no data set folder at nowhere"),
        (["--against", "nowhere.json"], 1, "cannot read the report nowhere.json"),
        (["--no-cost"], 2, "nothing to measure"),
        (["--plot", "q.png"], 2, "--plot needs --data"),
        (["--plot", "q.png", "--data", ".", "--no-cost"], 2, "neither --no-cost nor --table"),
        (["--html", "gone/r.html"], 2, "there is no directory gone"),
        (["--size", "70000x10"], 2, "at most 65500"),
        (["--duration", "-1"], 2, "--duration is '-1'"),
        (["--video", "gone.mp4", "-m", "no-such-model"], 4, "no model named"),
    ],
)
def test_bad_requests(
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == status
    shown, said = capsys.readouterr()
    assert shown == ""
    assert words in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "extra",
    [
        ["--against", "no.json"],
        ["--data", "nowhere"],
        ["--device", "banana"],
        ["-m", "student"],
        ["--video", "a.mp4"],
        ["--size", "64x48"],
        ["--limit", "3"],
    ],
)
def test_tables_do_not_ignore_what_they_cannot_do(extra: list[str]) -> None:
    assert main(["bench", "--table", "5", *extra]) == 2
