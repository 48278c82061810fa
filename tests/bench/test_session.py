from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dehaze.bench import session
from dehaze.bench.cost import CostSettings
from dehaze.bench.dataset import find_data, name_of
from dehaze.bench.environment import describe_environment
from dehaze.bench.session import Plan, run
from dehaze.errors import DataError, ModelError, UsageError, VideoError


def test_references_meet_the_same_pictures(checkpoints: dict[str, str], indoor: Path) -> None:
    report = run(Plan(models=[checkpoints["lite"]], device="cpu", cost=None, data=[indoor])).report
    (quality,) = report.quality
    rows = {row.method: row for row in quality.rows}
    assert list(rows)[:1] == ["lite"]
    assert {"untouched", "dark-channel"} <= set(rows)
    assert len({tuple(s.name for s in row.scores) for row in quality.rows}) == 1
    assert [s.gain for s in rows["untouched"].scores] == [0.0] * 6
    assert list(rows["untouched"].levels) == ["3", "8"]
    assert quality.data == "indoor"
    assert report.cost == []


def test_identity_follows_the_files_not_the_place(
    checkpoints: dict[str, str], indoor: Path, tmp_path: Path
) -> None:
    shutil.copytree(indoor, tmp_path / "elsewhere" / "indoor")
    here, there = (find_data([root])[0][0].identity for root in (indoor, tmp_path / "elsewhere" / "indoor"))
    assert here["sha256"] == there["sha256"]
    fewer = find_data([indoor], limit=2)[0][0].identity
    assert fewer["sha256"] != here["sha256"]


def test_a_limit_takes_pairs_from_everywhere(indoor: Path) -> None:
    (found,), _ = find_data([indoor], limit=3)
    assert [p.hazy.name for p in found.pairs] == ["1400_3.png", "1401_8.png", "1402_3.png"]


def test_parts_of_a_data_set_are_scored_apart_and_training_pictures_left_out(
    indoor: Path, tmp_path: Path
) -> None:
    for name in ("SOTS/indoor", "SOTS/outdoor", "ITS"):
        shutil.copytree(indoor, tmp_path / "RESIDE" / name)
    found, _ = find_data([tmp_path / "RESIDE"])
    assert [f.name for f in found] == ["SOTS/indoor", "SOTS/outdoor"]
    assert [len(f) for f in found] == [6, 6]
    alone, _ = find_data([tmp_path / "RESIDE" / "ITS"])
    assert len(alone[0]) == 6


def test_a_data_set_with_problems_is_reported_before_the_work(indoor: Path, tmp_path: Path) -> None:
    shutil.copytree(indoor, tmp_path / "indoor")
    (tmp_path / "indoor/gt/1401.png").unlink()
    (tmp_path / "indoor/hazy/1402_3.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 hazy pictures without a clear one") as caught:
        run(Plan(models=["this model is not even looked for"], data=[tmp_path / "indoor"]))
    assert "1 files that cannot be read" in caught.value.message


def test_clear_pictures_too_many_are_only_noted(
    checkpoints: dict[str, str], indoor: Path, tmp_path: Path
) -> None:
    shutil.copytree(indoor, tmp_path / "indoor")
    for level in (3, 8):
        (tmp_path / f"indoor/hazy/1402_{level}.png").unlink()
    plan = Plan(models=[checkpoints["lite"]], device="cpu", cost=None, data=[tmp_path / "indoor"])
    report = run(plan).report
    assert report.quality[0].rows[0].overall.pictures == 4
    assert any("1 clear pictures without a hazy one are left out" in note for note in report.notes)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(Plan(data=[tmp_path]))
    with pytest.raises(DataError, match="no data set folder"):
        run(Plan(data=[tmp_path / "none"]))


def test_clear_pictures_alone_are_no_data_set(indoor: Path, tmp_path: Path) -> None:
    shutil.copytree(indoor / "gt", tmp_path / "gt")
    (tmp_path / "hazy").mkdir()
    with pytest.raises(DataError, match="0 sound pairs"):
        run(Plan(models=["this model is not even looked for"], cost=None, data=[tmp_path]))


@pytest.mark.parametrize("part", ["gt", "hazy", "..", "."])
def test_pictures_have_the_same_names_wherever_a_data_set_is_entered(indoor: Path, part: str) -> None:
    (found,), _ = find_data([indoor / part], limit=1)
    assert name_of(found.pairs[0], found) == "hazy/1400_3.png"


def test_data_sets_of_one_name_are_told_apart(
    checkpoints: dict[str, str], indoor: Path, tmp_path: Path
) -> None:
    for place in ("here", "there"):
        shutil.copytree(indoor, tmp_path / place / "indoor")
    roots = [tmp_path / "here/indoor", tmp_path / "there"]
    plan = Plan(models=[checkpoints["lite"]], references=False, device="cpu", cost=None, data=roots)
    assert [part.data for part in run(plan).report.quality] == [
        str(tmp_path / place / "indoor") for place in ("here", "there")
    ]


def test_a_video_that_cannot_be_read_is_said_before_the_work(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "measure_cost", None)  # would raise TypeError
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        run(Plan(models=[checkpoints["lite"]], device="cpu", video="gone.mp4"))


def test_a_model_that_ran_elsewhere_is_named(
    checkpoints: dict[str, str], indoor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an exported one does, which ``auto`` leaves on the CPU of a machine with a GPU."""
    monkeypatch.setattr(session, "resolve_device", lambda name: torch.device("mps"))
    plan = Plan(models=[checkpoints["lite"]], references=False, device="cpu", cost=None, data=[indoor])
    assert run(plan).report.notes == ["lite ran on cpu"]


def test_a_gpu_is_not_described_as_a_cpu() -> None:
    assert describe_environment(torch.device("mps")).describe().startswith("Apple GPU (mps); ")
    assert describe_environment(torch.device("cpu")).describe().startswith("CPU, ")


def test_luma_says_so(checkpoints: dict[str, str], indoor: Path) -> None:
    plan = Plan(models=[checkpoints["lite"]], device="cpu", cost=None, data=[indoor], channel="y")
    assert run(plan).report.quality[0].convention.startswith("Y of BT.601, per image")


def test_nothing_to_measure_and_unknown_models_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        run(Plan(cost=None))
    with pytest.raises(ModelError, match="no model named"):
        run(Plan(models=["no-such-model"]))


def test_progress_of_cost_and_quality(checkpoints: dict[str, str], indoor: Path) -> None:
    seen: dict[str, list[float]] = {}

    class Bar:
        def __init__(self, text: str) -> None:
            self.done = seen.setdefault(text, [])

        def update(
            self, done: float | None = None, total: float | None = None, text: str | None = None
        ) -> None:
            self.done.append(done)

        def advance(self, amount: float = 1) -> None:
            self.done.append(amount)

    @contextmanager
    def track(text: str, total: float | None = None, unit: str = "files"):
        yield Bar(text)

    cost = CostSettings(sizes=((48, 32),), seconds=0, startup=False)
    plan = Plan(models=[checkpoints["lite"]], references=False, device="cpu", cost=cost, data=[indoor])
    report = run(plan, track).report
    assert seen == {"cost": [1, 2, 3], "quality, indoor": [1, 2, 3, 4, 5, 6]}
    assert report.yardstick is not None
