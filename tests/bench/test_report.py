from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_reports import report

from dehaze.bench.report import REPORT_VERSION, read_report, to_json
from dehaze.errors import DataError


def written(path: Path, values: Any) -> Path:
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_a_report_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    assert read_report(written(tmp_path / "r.json", to_json(report()))) == report()


def test_json_is_strict() -> None:
    json.dumps(to_json(report()), allow_nan=False)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    values = to_json(report()) | {"mood": "good"}
    assert read_report(written(tmp_path / "r.json", values)) == report()


def damaged(change: str) -> dict[str, Any]:
    values = json.loads(json.dumps(to_json(report())))
    match change:
        case "cost":
            values["cost"] = 7
        case "psnr":
            values["quality"][0]["rows"][0]["overall"]["psnr"]["mean"] = "high"
        case "nan":
            values["quality"][0]["rows"][0]["overall"]["psnr"]["mean"] = float("nan")
        case "environment":
            del values["environment"]["cpu"]
        case "bool":
            values["cost"][0]["width"] = True
    return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("cost", "report.cost is 7, expected list"),
        ("psnr", r"report.quality\[0\].rows\[0\].overall.psnr.mean is 'high'"),
        ("nan", "mean is nan"),
        ("environment", "cpu"),
        ("bool", "width is True"),
    ],
)
def test_damage_is_named_by_its_place(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_report(written(tmp_path / "r.json", damaged(change)))


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"version": "new"}'])
def test_what_is_no_report_is_refused_with_the_way_to_make_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"r\.json is not a report") as caught:
        read_report(written(tmp_path / "r.json", text))
    assert "dehaze bench --json" in caught.value.hint


def test_newer_reports_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="version 2, this dehaze reads up to 1"):
        read_report(written(tmp_path / "r.json", {"version": REPORT_VERSION + 1}))
    with pytest.raises(DataError, match="No such file"):
        read_report(tmp_path / "none.json")
