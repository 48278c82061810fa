from __future__ import annotations

from dataclasses import replace

import pytest
from bench_reports import ENVIRONMENT, cost_row, quality, quality_row, report, timing

from dehaze.bench.against import Change, compare
from dehaze.bench.report import Report


def find(before: Report, now: Report, figure: str, tolerance: float = 0.05) -> Change:
    """The change of one figure of the student."""
    changes = compare(before, now, tolerance).changes
    return next(c for c in changes if c.figure == figure and c.subject.startswith("student"))


def with_psnr(offset: float) -> Report:
    """A report whose student does better by some dB on every picture."""
    return replace(report(), quality=[quality(quality_row(offset=offset), quality_row("untouched", -10.0))])


def test_a_report_equals_itself() -> None:
    comparison = compare(report(), report(), 0)
    assert {c.verdict for c in comparison.changes} == {"same"}
    assert {c.figure for c in comparison.changes} >= {"PSNR, dB", "SSIM", "GFLOPs", "network, ms", "flicker"}
    assert not comparison.regressions


@pytest.mark.parametrize(
    ("claimed", "verdict"), [(0.5, "regression"), (0.1, "worse"), (0.001, "same"), (-0.5, "better")]
)
def test_a_wrong_claim_of_psnr_is_found(claimed: float, verdict: str) -> None:
    change = find(with_psnr(claimed), report(), "PSNR, dB")
    assert change.verdict == verdict
    assert change.increase == pytest.approx(10 ** (claimed / 10) - 1)


def test_a_mean_that_the_pictures_do_not_bear_out_is_found() -> None:
    honest = report()
    row = honest.quality[0].rows[0]
    raised = replace(row.overall, psnr=replace(row.overall.psnr, mean=row.overall.psnr.mean + 1))
    planted = replace(honest, quality=[quality(replace(row, overall=raised))])
    assert find(planted, honest, "PSNR, dB").verdict == "regression"


def test_a_change_within_the_scatter_of_the_pictures_is_noise() -> None:
    honest = report()
    row = honest.quality[0].rows[0]
    scores = [replace(s, psnr=s.psnr + (3 if i % 4 < 2 else -3.2)) for i, s in enumerate(row.scores)]
    overall = replace(row.overall, psnr=replace(row.overall.psnr, mean=row.overall.psnr.mean - 0.1))
    now = replace(honest, quality=[quality(replace(row, scores=scores, overall=overall))])
    assert find(honest, now, "PSNR, dB").verdict == "same"


def test_ssim_counts_by_what_is_missing_to_one() -> None:
    honest = report()
    row = honest.quality[0].rows[0]
    claim = replace(row.overall, ssim=replace(row.overall.ssim, mean=0.92))
    planted = replace(honest, quality=[quality(replace(row, overall=claim))])
    assert find(planted, honest, "SSIM").increase == pytest.approx(0.02 / 0.08)


@pytest.mark.parametrize(
    ("field", "value", "figure", "verdict"),
    [
        ("parameters", 90_000, "parameters", "regression"),
        ("parameters", 96_000, "parameters", "worse"),
        ("parameters", 100_000, "parameters", "better"),
        ("gflops", 40.0, "GFLOPs", "regression"),
        ("network", timing(40.0), "network, ms", "regression"),
        ("network", timing(79.0), "network, ms", "same"),
        ("network", timing(200.0), "network, ms", "better"),
        ("memory_mb", 395.0, "memory, MB", "same"),
        ("memory_mb", 200.0, "memory, MB", "regression"),
        ("startup_s", 1.5, "start-up, s", "same"),
        ("startup_s", 0.5, "start-up, s", "regression"),
    ],
)
def test_wrong_claims_of_cost_are_found(field: str, value: object, figure: str, verdict: str) -> None:
    claim = replace(report(), cost=[replace(cost_row(), **{field: value})])
    assert find(claim, report(), figure).verdict == verdict


def test_a_machine_that_is_twice_as_slow_today_is_no_regression() -> None:
    slow = replace(report(), cost=[cost_row(milliseconds=200.0)], yardstick=timing(100.0))
    comparison = compare(report(), slow, 0.05)
    assert find(report(), slow, "network, ms").verdict == "same"
    assert any("2.00 times as long" in note for note in comparison.notes)
    honest = replace(report(), cost=[cost_row(milliseconds=200.0)])
    assert find(report(), honest, "network, ms").verdict == "regression"


def test_times_of_another_machine_are_not_compared_but_counts_are() -> None:
    other = replace(report(), environment=replace(ENVIRONMENT, cpu="Another CPU"))
    comparison = compare(other, report(), 0.05)
    figures = {c.figure for c in comparison.changes}
    assert "network, ms" not in figures
    assert figures >= {"parameters", "GFLOPs", "PSNR, dB"}
    assert any("Another CPU" in note for note in comparison.notes)


def test_quality_on_other_files_is_not_compared() -> None:
    other = replace(report(), quality=[quality(quality_row(offset=3.0), identity="other")])
    comparison = compare(other, report(), 0.05)
    assert "PSNR, dB" not in {c.figure for c in comparison.changes}
    assert any("not measured now" in note for note in comparison.notes)


def test_what_was_not_measured_now_is_said() -> None:
    comparison = compare(report(), replace(report(), cost=[cost_row()]), 0.05)
    assert "untouched, 620 x 460: in the report, not measured now" in comparison.notes


def test_nothing_that_the_report_has_is_passed_over_in_silence() -> None:
    comparison = compare(report(), replace(report(), cost=[], quality=[], flicker=[]), 0.05)
    assert comparison.changes == []
    missing = [note for note in comparison.notes if "not measured now" in note]
    assert len(missing) == 5
    for subject in (
        "student, 620 x 460",
        "untouched: quality on SOTS/indoor",
        "student, fog.mp4, smooth 0.5",
    ):
        assert any(note.startswith(subject) for note in missing)


def test_more_flicker_is_a_regression() -> None:
    worse = replace(report(), flicker=[replace(report().flicker[0], flicker=2.5)])
    assert find(report(), worse, "flicker").verdict == "regression"


def test_more_pictures_made_worse_is_a_regression() -> None:
    row = quality_row()
    now = replace(report(), quality=[quality(replace(row, overall=replace(row.overall, worse=3)))])
    change = find(report(), now, "worse than untouched")
    assert (change.verdict, change.increase) == ("regression", 3 / 20)
