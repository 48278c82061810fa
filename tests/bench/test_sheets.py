from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from bench_reports import cost_row, report

from dehaze.bench.against import compare
from dehaze.bench.sheets import (
    NOTHING,
    Sheet,
    comparison_sheet,
    markdown,
    milliseconds,
    report_csv,
    sheets,
    table_sheet,
    tables_csv,
)
from dehaze.bench.tables import FilledTable, TableRow

FILLED = FilledTable(
    6,
    "Resolution",
    ["psnr", "ssim"],
    [
        TableRow("LR", {"psnr": 31.9616, "ssim": 0.9508}, {"psnr": 25.5}, "a | b"),
        TableRow("HR", {"psnr": 32.1412, "ssim": 0.9666}, {}, "not trained", "note of HR"),
    ],
    "note",
)


def cell(sheet: Sheet, row: int, column: str) -> str:
    return sheet.rows[row][list(sheet.columns).index(column)]


def by_title(title: str) -> Sheet:
    return next(s for s in sheets(report()) if s.title.startswith(title))


def test_every_row_has_a_cell_for_every_column() -> None:
    for sheet in [*sheets(report()), table_sheet(FILLED)]:
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}


def test_network_and_files_are_told_apart() -> None:
    network, files = by_title("Cost of the network"), by_title("From file to file")
    assert [row[0] for row in network.rows] == ["student"]
    assert (cell(network, 0, "network ms"), cell(network, 0, "images/s")) == ("80.0", "12.5")
    assert (cell(network, 0, "parameters"), cell(network, 0, "GFLOPs")) == ("96,007", "53.4")
    assert [row[0] for row in files.rows] == ["student", "untouched"]
    assert (cell(files, 0, "total ms"), cell(files, 1, "dehaze ms")) == ("103.5", NOTHING)
    assert any("2 x multiply-accumulates" in note for note in network.notes)


def test_quality_comes_with_spread_interval_convention_and_levels() -> None:
    quality = by_title("Quality on SOTS/indoor")
    overall = report().quality[0].rows[0].overall
    assert quality.rows[0][:2] == ("student", f"{overall.psnr.mean:.2f}")
    assert cell(quality, 0, "95 % interval") == f"{overall.psnr.low:.2f} to {overall.psnr.high:.2f}"
    assert (cell(quality, 1, "worse"), cell(quality, 1, "of")) == ("0", "20")
    assert "RGB, per image" in quality.notes
    assert by_title("PSNR / SSIM by haze level").columns == ("method", "3", "8")
    best = by_title("Best and worst").rows[0]
    assert best[1].startswith("hazy/1406_3.png (31.00 dB")
    assert best[2].startswith("hazy/1400_3.png (25.00 dB")


def test_a_column_of_figures_is_known_from_one_of_words() -> None:
    sheet = Sheet("t", ("a", "b", "c"), [("x", "1,234", NOTHING), ("2x", "-3.5 dB", "7")])
    assert [sheet.numeric(i) for i in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    ("value", "text"), [(None, NOTHING), (0.0123, "0.01"), (9.876, "9.88"), (98.76, "98.8"), (5476.7, "5477")]
)
def test_times_have_about_three_digits(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


def test_csv_reads_back_as_the_reports_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(report()))))
    kinds = [row["kind"] for row in rows]
    assert {k: kinds.count(k) for k in kinds} == {
        "cost": 2,
        "quality": 2,
        "level": 4,
        "picture": 40,
        "flicker": 1,
    }
    cost, quality = rows[0], rows[kinds.index("quality")]
    assert float(cost["network_ms"]) == 80
    assert int(cost["parameters"]) == 96_007
    assert rows[1]["parameters"] == ""
    assert float(quality["psnr"]) == report().quality[0].rows[0].overall.psnr.mean
    pictures = [float(r["psnr"]) for r in rows if r["kind"] == "picture" and r["method"] == "student"]
    assert sum(pictures) / len(pictures) == pytest.approx(float(quality["psnr"]))


def test_the_papers_tables_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(tables_csv([FILLED]))))
    assert len(rows) == 4
    assert rows[0] == {
        "table": "6",
        "row": "LR",
        "figure": "psnr",
        "paper": "31.9616",
        "ours": "25.5",
        "source": "a | b",
    }
    assert rows[3]["ours"] == ""


def test_the_papers_tables_side_by_side() -> None:
    sheet = table_sheet(FILLED)
    assert list(sheet.columns) == [
        "model",
        "PSNR, dB: paper",
        "PSNR, dB: ours",
        "SSIM: paper",
        "SSIM: ours",
        "ours from",
    ]
    assert sheet.rows[0] == ("LR", "31.96", "25.50", "0.9508", NOTHING, "a | b")
    assert list(sheet.notes) == ["note", "HR: note of HR"]


def test_long_sources_of_the_papers_tables_are_notes() -> None:
    sources = ["a" * 40, "short", "b" * 40, "a" * 40]
    table = replace(FILLED, rows=[TableRow(str(i), {}, {}, source) for i, source in enumerate(sources)])
    sheet = table_sheet(table)
    assert [row[-1] for row in sheet.rows] == ["(1)", "short", "(2)", "(1)"]
    assert list(sheet.notes) == ["note", "(1) " + "a" * 40, "(2) " + "b" * 40]


def test_markdown_tables_keep_their_shape() -> None:
    text = markdown([table_sheet(FILLED)], "Heading", ["a line"])
    lines = text.splitlines()
    assert lines[0] == "# Heading"
    assert "* a line" in lines
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {7}
    assert table[1] == "| --- | --: | --: | --: | --: | --- |"


def test_only_changes_are_listed() -> None:
    now = replace(report(), cost=[replace(cost_row(), parameters=100_000)])
    sheet = comparison_sheet(compare(report(), now, 0.05))
    assert [(row[1], row[-1]) for row in sheet.rows] == [("parameters", "worse")]
    assert sheet.rows[0][4] == "+4.2 %"


def test_every_cost_stands_under_its_heading() -> None:
    network, files = sheets(replace(report(), quality=[], flicker=[]))
    expected = {
        "parameters": "96,007",
        "MB": "0.400",
        "GFLOPs": "53.4",
        "network ms": "80.0",
        "p95 ms": "96.0",
        "images/s": "12.5",
    }
    assert expected.items() <= dict(zip(network.columns, network.rows[0], strict=True)).items()
    expected = {
        "decode ms": "2.00",
        "dehaze ms": "100.0",
        "encode ms": "1.50",
        "total ms": "103.5",
        "p95 ms": "124.2",
        "images/s": "9.66",
        "start-up s": "2.00",
        "peak MB": "400",
    }
    assert expected.items() <= dict(zip(files.columns, files.rows[0], strict=True)).items()
