from __future__ import annotations

import json
from pathlib import Path

import pytest

from dehaze.bench import tables
from dehaze.bench.paper import METRICS, build_network, paper_tables
from dehaze.bench.recorded import Run, read_recorded
from dehaze.bench.tables import NOT_OURS, NOT_TRAINED, TableRow, fill_table
from dehaze.errors import UsageError
from dehaze.models import count_parameters
from dehaze.weights import ModelEntry
from dehaze.weights.manifest import manifest_path


def entry(name: str, **metrics: dict[str, object]) -> ModelEntry:
    return ModelEntry(
        name=name,
        architecture="student",
        source="bundled",
        file=f"{name}.safetensors",
        sha256="0" * 64,
        bytes=1,
        parameters=1,
        licence="x",
        role="benchmark",
        description="x",
        metrics=metrics,
    )


def row(number: int, label: str, *runs: Run, published: tuple[ModelEntry, ...] = ()) -> TableRow:
    filled = fill_table(number, recorded=runs, published=published)
    return next(r for r in filled.rows if r.label == label)


def run(figures: dict[str, float] | None = None, **settings: object) -> Run:
    values = {"table": 8, "row": "l1", "command": "dehaze distill --measure l1", "commit": "1a2b3c4"}
    return Run(**(values | {"figures": figures or {}} | settings))  # type: ignore[arg-type]


def test_the_paper_as_printed() -> None:
    """Spot checks typed in by hand from the paper, one for each table."""
    found = {(n, r.label): r.figures for n, table in paper_tables().items() for r in table.rows}
    assert list(paper_tables()) == list(range(1, 10))
    assert found[1, "MC-FSRCNN"] == {"parameters": 38_420, "psnr": 40.53}
    assert found[2, "FSRCNN-2x"]["psnr"] == 60.02
    assert found[3, "DSCBN-MC-FSRCNN"] == {"parameters": 29_570, "psnr": 38.12}
    assert found[4, "DSC-MC-FSRCNN"]["psnr"] == 65.94
    assert found[5, "PFDN"] == {"parameters": 11_278_000, "psnr": 32.68, "ssim": 0.976}
    assert found[5, "Ours"] == {"parameters": 122_000, "psnr": 32.1412, "ssim": 0.9666}
    assert found[6, "Low-Resolution (LR)"] == {"psnr": 31.9616, "ssim": 0.9508}
    assert found[7, "0.75"] == {"psnr": 32.2175, "ssim": 0.9603}
    assert found[8, "KL Divergence"] == {"psnr": 30.1275, "ssim": 0.9187}
    assert found[9, "GCA-Net"] == {"parameters": 703_000, "size_mb": 2.713, "gflops": 126.301, "ms": 59.6612}
    assert [len(t.rows) for t in paper_tables().values()] == [5, 3, 3, 3, 18, 2, 3, 3, 9]


def test_keys_are_unique_and_labels_clean() -> None:
    for table in paper_tables().values():
        keys = [r.key for r in table.rows]
        assert len(set(keys)) == len(keys)
        assert all(text == text.strip() for r in table.rows for text in (r.key, r.label, r.note))
        assert set(table.metrics) <= set(METRICS)


@pytest.mark.parametrize(
    ("number", "label", "parameters"),
    [
        (1, "FSRCNN-2x", 24_683),
        (1, "FSRCNN-4x", 24_683),
        (1, "MC-FSRCNN", 38_427),
        (3, "DSC-MC-FSRCNN", 26_451),
        (5, "AOD-Net", 1_761),
        (5, "Ours", 96_007),
    ],
)
def test_parameters_are_counted(number: int, label: str, parameters: int) -> None:
    assert row(number, label).ours["parameters"] == parameters


@pytest.mark.parametrize("number", range(1, 9))
def test_without_runs_and_models_nothing_is_claimed(number: int) -> None:
    for r in fill_table(number, recorded=[], published=[]).rows:
        assert set(r.ours) <= {"parameters"}
        assert NOT_TRAINED in r.source or r.source == NOT_OURS


def test_recorded_runs_are_averaged_and_told_one_by_one() -> None:
    first = run({"psnr": 24.0, "ssim": 0.90}, seed=0, minutes=10.0)
    second = run({"psnr": 25.0, "ssim": 0.92}, seed=1)
    found = row(8, "L1", first, second)
    assert found.ours == {"psnr": 24.5, "ssim": pytest.approx(0.91)}
    assert found.source.startswith(
        "mean of 2 runs: dehaze distill --measure l1; commit 1a2b3c4; seed 0; 10 min"
    )
    assert found.source.endswith(" | the same with seed 1")
    other = row(8, "L1", first, run({"psnr": 25.0}, seed=1, commit="2b3c4d5"))
    assert other.source.endswith("commit 2b3c4d5; seed 1")
    assert row(8, "L2", first, second).ours == {}


def test_a_figure_that_only_one_run_has_is_not_averaged() -> None:
    assert row(8, "L1", run({"psnr": 24.0}), run({"psnr": 25.0, "ssim": 0.9})).ours == {"psnr": 24.5}


def test_a_published_checkpoint_speaks_for_itself() -> None:
    figures = {"psnr": 30.5, "ssim": 0.96, "command": "dehaze bench -m its --data SOTS/indoor"}
    published = (entry("its", **{"SOTS indoor": figures}),)
    found = row(5, "Ours", Run(5, "distilled", checkpoint="its"), published=published)
    assert {m: found.ours[m] for m in ("psnr", "ssim")} == {"psnr": 30.5, "ssim": 0.96}
    assert "model its, SOTS indoor: dehaze bench -m its --data SOTS/indoor" in found.source


def test_aod_net_is_found_by_name_and_never_by_other_data() -> None:
    real = (entry("aod-net", **{"real pairs": {"psnr": 15.0, "command": "x"}}),)
    found = row(5, "AOD-Net", published=real)
    assert "psnr" not in found.ours
    assert "states no figures on SOTS indoor" in found.source


def test_a_run_of_a_checkpoint_that_is_not_there_claims_nothing() -> None:
    assert NOT_TRAINED in row(5, "Ours", Run(5, "distilled", checkpoint="its")).source


def test_cost_is_counted_and_timed_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SECONDS", 0.0)
    monkeypatch.setattr(tables, "SIZE", (62, 46))
    filled = fill_table(9, device="cpu", recorded=[], published=[])
    ours = {r.label: r for r in filled.rows}
    assert ours["Ours"].ours["gflops"] == pytest.approx(53.43 / 100, rel=0.001)
    assert ours["Ours"].ours["size_mb"] == pytest.approx(4 * 96_007 / 1e6, rel=0.1)
    assert ours["Ours"].ours["ms"] > ours["AOD-Net"].ours["ms"] > 0
    assert "timed now on" in ours["Ours"].source
    assert ours["FFA-Net"].ours == {}


@pytest.mark.parametrize("number", [0, 10, -1])
def test_other_tables_are_refused(number: int) -> None:
    with pytest.raises(UsageError, match="no table"):
        fill_table(number)


def test_the_shipped_runs_can_be_read_and_belong_to_rows() -> None:
    rows = {(n, r.key) for n, table in paper_tables().items() for r in table.rows}
    assert {(r.table, r.row) for r in read_recorded()} <= rows


def test_the_distilled_student_of_table_5_is_the_manifests() -> None:
    manifest = json.loads(manifest_path().read_text())
    runs = manifest["distillation"]["students"]["student"]["distilled"]
    recorded = [r for r in read_recorded() if (r.table, r.row) == (5, "distilled")]
    assert [r.seed for r in recorded] == runs["seeds"]
    assert [r.figures["psnr"] for r in recorded] == runs["psnr"]
    assert [r.figures["ssim"] for r in recorded] == runs["ssim"]
    assert {r.commit for r in recorded} == {manifest["distillation"]["commit"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"figures": {}}, "either figures or a checkpoint"),
        ({"figures": {"psnr": 1.0}, "checkpoint": "x"}, "either figures or a checkpoint"),
        ({"figures": {"psnr": 1.0}, "command": ""}, "command and commit"),
        ({"figures": {"psnr": 1.0}, "commit": ""}, "command and commit"),
    ],
)
def test_a_figure_without_its_origin_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(**values)  # type: ignore[arg-type]


def test_recorded_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps({"version": 2, "runs": []}))
    with pytest.raises(ValueError, match="version 2"):
        read_recorded(path)
    path.write_text(json.dumps({"version": 1, "runs": [{"table": "six", "row": "lr"}]}))
    with pytest.raises(TypeError, match=r"runs\[0\].table is 'six'"):
        read_recorded(path)


@pytest.mark.parametrize("name", ["student", "aod-net", "fsrcnn", "fsrcnn-4x", "dscbn-mc-fsrcnn"])
def test_every_network_named_can_be_built(name: str) -> None:
    assert count_parameters(build_network(name)) > 0
    assert {r.network for t in paper_tables().values() for r in t.rows} <= {
        "",
        *("student", "aod-net", "fsrcnn-4x"),
        *("fsrcnn", "mc-fsrcnn", "relu-mc-fsrcnn", "dsc-mc-fsrcnn", "dscbn-mc-fsrcnn"),
    }
