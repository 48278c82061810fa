from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from shelf import METRICS, Shelf, checkpoint

from dehaze.models import build, count_parameters
from dehaze.weights import list_models, load, manifest, update
from dehaze.weights.checkpoint import Header, read_header, save_checkpoint, sha256_of

NEW = ("--role", "general", "--description", "Small and quick.")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path / "shelf", monkeypatch)


def test_the_shipped_manifest_is_true() -> None:
    assert update.main(["--check"]) == 0


def test_a_checkpoint_becomes_the_default_model(shelf: Shelf, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "run.safetensors", metrics=METRICS, data={"ITS": {"pairs": 3}})
    assert shelf.update(file, *NEW, "--default") == 0
    (entry,) = list_models()
    stored = shelf.weights / "small.safetensors"
    assert (entry.name, entry.is_default, entry.role) == ("small", True, "general")
    assert (entry.sha256, entry.bytes) == (sha256_of(stored), stored.stat().st_size)
    assert entry.parameters == count_parameters(build("lite"))
    assert (entry.metrics, entry.data) == (METRICS, {"ITS": {"pairs": 3}})
    model, header = load()
    assert header.name == "small"
    weights = load(str(file))[0].state_dict()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in weights.items())
    assert shelf.update("--check") == 0


def test_what_is_given_is_stored_in_the_checkpoint(shelf: Shelf, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "run.safetensors", licence="")
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(METRICS))
    assert shelf.update(file, *NEW, "--name", "mine", "--licence", "CC0-1.0", "--metrics", figures) == 0
    header = load("mine")[1]
    assert (header.name, header.licence, header.metrics) == ("mine", "CC0-1.0", METRICS)
    assert shelf.values()["models"]["mine"]["licence"] == "CC0-1.0"


def report(path: Path, name: str) -> Path:
    """What `dehaze bench --json` writes, as far as figures are read from it."""
    overall = {"pictures": 50, "psnr": {"mean": 24.9951}, "ssim": {"mean": 0.93337}}
    rows = [{"method": "untouched", "overall": {}}, {"method": name, "overall": overall}]
    quality = [{"data": "SOTS-indoor", "rows": rows}]
    path.write_text(json.dumps({"command": "dehaze bench -m small", "quality": quality}))
    return path


def test_figures_come_from_a_report_of_bench(shelf: Shelf, tmp_path: Path) -> None:
    """They replace training's own validation, which no command reproduces, and join what was measured."""
    file = checkpoint(tmp_path / "run.safetensors", metrics={"validation": {"psnr": 1.0}, **METRICS})
    assert shelf.update(file, *NEW, "--report", report(tmp_path / "r.json", "small")) == 0
    expected = {"psnr": 25.0, "ssim": 0.9334, "pictures": 50, "command": "dehaze bench -m small"}
    assert load("small")[1].metrics == {**METRICS, "SOTS-indoor": expected}
    assert shelf.values()["models"]["small"]["metrics"]["SOTS-indoor"] == expected


def test_a_report_of_another_model_is_refused(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(tmp_path / "run.safetensors")
    assert shelf.update(file, *NEW, "--report", report(tmp_path / "r.json", "large")) == 4
    assert "no quality figures of 'small'" in capsys.readouterr().err
    assert shelf.values()["models"] == {}


def test_the_data_can_be_named(shelf: Shelf, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "run.safetensors")
    kept = read_header(file).data
    assert shelf.update(file, *NEW, "--data-name", "A, of one's own", "--data-name", "B, CC0") == 0
    assert shelf.values()["models"]["small"]["data"] == {**kept, "names": ["A, of one's own", "B, CC0"]}


def test_the_working_size_can_be_set(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW, "--working-size", 123) == 0
    assert load("small")[1].working_size == 123
    assert shelf.values()["models"]["small"]["working_size"] == 123


def test_the_transfer_radius_can_be_set(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW) == 0
    assert shelf.values()["models"]["small"]["transfer_radius"] == 1
    assert shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW, "--transfer-radius", 6) == 0
    assert load("small")[1].transfer_radius == 6
    assert shelf.values()["models"]["small"]["transfer_radius"] == 6


def test_the_second_look_can_be_set_and_taken_back(shelf: Shelf, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "run.safetensors")
    assert shelf.update(file, *NEW, "--second-look", 192) == 0
    assert load("small")[1].second_look == shelf.values()["models"]["small"]["second_look"] == 192
    assert shelf.update(shelf.weights / "small.safetensors", "--second-look", 0) == 0
    assert load("small")[1].second_look is shelf.values()["models"]["small"]["second_look"] is None


def test_the_result_obeys_the_schema(shelf: Shelf, tmp_path: Path) -> None:
    shelf.update(checkpoint(tmp_path / "run.safetensors", metrics=METRICS), *NEW, "--default")
    schema = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(shelf.values())


def test_a_retrained_model_keeps_its_words(shelf: Shelf, tmp_path: Path) -> None:
    shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW)
    before = shelf.values()["models"]["small"]
    assert shelf.update(checkpoint(tmp_path / "run.safetensors", seed=1, working_size=None)) == 0
    after = shelf.values()["models"]["small"]
    assert (after["role"], after["description"]) == (before["role"], before["description"])
    assert after["sha256"] != before["sha256"]
    assert (before["working_size"], after["working_size"]) == (160, None)


def test_check_names_what_is_stale_and_writes_nothing(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW)
    checkpoint(shelf.weights / "small.safetensors", seed=1)
    checkpoint(shelf.weights / "stray.safetensors")
    values = shelf.values()
    shelf.path.write_text(json.dumps({**values, "default": "gone"}))
    text = shelf.path.read_text()
    capsys.readouterr()
    assert shelf.update("--check") == 1
    said = capsys.readouterr().err
    for words in ("small differs", "stray.safetensors is not in it", "the default gone"):
        assert words in said
    assert shelf.path.read_text() == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.pop("default"), "has no 'default'"),
        (lambda values: values["models"]["small"].pop("source"), "has no 'source'"),
        (lambda values: values["models"]["small"].pop("file"), "small needs text as its file"),
        (lambda values: values["models"]["small"].update(role="best"), "role of general, benchmark"),
        (lambda values: values["models"]["small"].update(source="hub"), "small needs text as its repository"),
        (lambda values: values.update(models=3), "is damaged"),
    ],
)
def test_what_people_write_is_checked(
    shelf: Shelf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    words: str,
) -> None:
    shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW)
    values = shelf.values()
    change(values)
    shelf.path.write_text(json.dumps(values))
    assert shelf.update() == 4
    assert words in capsys.readouterr().err
    assert shelf.values() == values


def test_a_manifest_that_is_no_json(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.path.write_text("{")
    assert shelf.update("--check") == 4
    assert "is damaged" in capsys.readouterr().err


def test_one_command_makes_it_true_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW)
    checkpoint(shelf.weights / "small.safetensors", seed=1)
    assert (shelf.update(), shelf.update("--check")) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "arguments", "words"),
    [
        ({}, ("--description", "x"), "no role"),
        ({}, ("--role", "general"), "no description"),
        ({"licence": ""}, NEW, "licence"),
        ({"metrics": {"SOTS": {"psnr": 3.0}}}, NEW, "the command"),
        ({"metrics": {"psnr": 3.0}}, NEW, "the command"),
    ],
)
def test_refusals_leave_no_trace(
    shelf: Shelf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, object],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert shelf.update(checkpoint(tmp_path / "run.safetensors", **fields), *arguments) == 4
    assert words in capsys.readouterr().err
    assert shelf.values()["models"] == {}
    assert list(shelf.weights.iterdir()) == []


def test_a_checkpoint_that_does_not_load_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_checkpoint(file, {"a": torch.zeros(1)}, Header("x", "lite", licence="MIT"))
    assert shelf.update(file, *NEW) == 4
    assert shelf.values()["models"] == {}


def test_a_damaged_checkpoint_does_not_replace_a_sound_one(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW) == 0
    before = (shelf.weights / "small.safetensors").read_bytes()
    weights = build("lite").state_dict()
    next(iter(weights.values())).fill_(float("nan"))
    bad = tmp_path / "bad.safetensors"
    save_checkpoint(bad, weights, replace(read_header(tmp_path / "run.safetensors"), name="small"))
    assert shelf.update(bad) == 4
    bad.write_bytes(bad.read_bytes()[:-1000])
    assert shelf.update(bad) == 4
    assert shelf.update(tmp_path / "run.safetensors", "--transfer-radius", "99") == 4
    assert [path.name for path in shelf.weights.iterdir()] == ["small.safetensors"]
    assert (shelf.weights / "small.safetensors").read_bytes() == before


@pytest.mark.parametrize("content", [None, b"no JSON", b"\xff", b"[]"])
def test_figures_that_cannot_be_read_are_refused(shelf: Shelf, tmp_path: Path, content: bytes | None) -> None:
    figures = tmp_path / "figures.json"
    if content is not None:
        figures.write_bytes(content)
    assert shelf.update(checkpoint(tmp_path / "run.safetensors"), *NEW, "--metrics", figures) == 4
    assert (shelf.values()["models"], list(shelf.weights.iterdir())) == ({}, [])


def test_what_is_said_of_no_checkpoint_is_refused(shelf: Shelf) -> None:
    for arguments in (("--default", "--name", "small"), NEW, ("--check", "--licence", "MIT")):
        with pytest.raises(SystemExit) as caught:
            shelf.update(*arguments)
        assert caught.value.code == 2


def test_a_name_is_no_path(shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint(tmp_path / "run.safetensors")
    assert shelf.update(file, *NEW, "--name", "../escaped") == 4
    assert "a model cannot be called '../escaped'" in capsys.readouterr().err
    assert not (tmp_path / "escaped.safetensors").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"quality": [{"data": "x", "rows": []}]}'])
def test_a_report_without_figures_is_refused(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "report.json").write_text(content)
    file = checkpoint(tmp_path / "run.safetensors")
    assert shelf.update(file, *NEW, "--report", tmp_path / "report.json") == 4
    assert "has no quality figures of 'small'" in capsys.readouterr().err
