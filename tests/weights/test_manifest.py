from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dehaze.errors import ModelError
from dehaze.weights import ModelEntry, list_models, manifest
from dehaze.weights.checkpoint import read_header, sha256_of

SCHEMA = json.loads((Path(manifest.__file__).parent / "manifest.schema.json").read_text())
SHIPPED = json.loads(manifest.manifest_path().read_text())
ENTRY = {
    "source": "bundled",
    "file": "small.safetensors",
    "role": "general",
    "description": "Small.",
    "sha256": "0" * 64,
    "bytes": 10,
    "parameters": 5,
    "architecture": "lite",
    "working_size": 160,
    "transfer_radius": 6,
    "reduction": "minimum",
    "second_look": 192,
    "licence": "MIT",
    "data": {},
    "metrics": {"SOTS indoor": {"psnr": 30.5, "command": "dehaze bench --data SOTS"}},
}
ON_HUB = {**ENTRY, "source": "hub", "repository": "a/b", "revision": "0" * 40}


def written(path: Path, **changes: Any) -> Path:
    values = {"version": 1, "default": "small", "models": {"small": ENTRY, "big-one": ON_HUB}, **changes}
    path.write_text(json.dumps(values))
    return path


def valid(models: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return bool(validator.is_valid({"version": 1, "default": None, "models": models}))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_shipped_manifest_obeys_its_schema() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(SHIPPED)
    assert SHIPPED["default"] in (None, *SHIPPED["models"])


def test_what_distillation_brings_is_said_of_equal_budgets() -> None:
    for name, arms in SHIPPED["distillation"]["students"].items():
        alone, distilled = arms["alone"], arms["distilled"]
        assert alone["seeds"] == distilled["seeds"]
        for runs in (alone, distilled):
            assert len(runs["seeds"]) == len(set(runs["seeds"])) == len(runs["psnr"]) == len(runs["ssim"])
        recipe = f"--recipe {name} "
        assert alone["command"].partition(recipe)[0].startswith("dehaze train ")
        assert distilled["command"].partition(recipe)[0].startswith("dehaze distill ")
        assert alone["command"].partition(recipe)[2] == distilled["command"].partition(recipe)[2] != ""


def test_the_schema_accepts_both_kinds_of_entries() -> None:
    assert valid({"small": ENTRY, "big-one": ON_HUB})


@pytest.mark.parametrize(
    "entry",
    [
        {k: v for k, v in ON_HUB.items() if k != "revision"},
        {**ON_HUB, "revision": "main"},
        {**ENTRY, "repository": "a/b"},
        {**ENTRY, "file": "small.pth"},
        {**ENTRY, "file": "/etc/small.safetensors"},
        {**ENTRY, "sha256": "A" * 64},
        {**ENTRY, "licence": ""},
        {**ENTRY, "role": "best"},
        {**ENTRY, "metrics": {"SOTS indoor": {"psnr": 30.5}}},
        {**ENTRY, "metrics": {"SOTS indoor": {"command": "dehaze bench"}}},
        {**ENTRY, "surprise": 1},
    ],
)
def test_the_schema_refuses(entry: dict[str, Any]) -> None:
    assert not valid({"small": entry})


def test_the_schema_knows_every_architecture() -> None:
    from dehaze.models import ARCHITECTURES

    assert SCHEMA["$defs"]["model"]["properties"]["architecture"]["enum"] == list(ARCHITECTURES)


def test_every_field_of_the_schema_is_read() -> None:
    fields = SCHEMA["$defs"]["model"]["properties"].keys()
    assert fields == ModelEntry.__dataclass_fields__.keys() - {"name", "is_default"}


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: str(entry.name))
def test_bundled_files_are_what_the_manifest_says(entry: ModelEntry) -> None:
    if entry.source == "bundled":
        path = manifest.bundled_path(entry)
        assert (sha256_of(path), path.stat().st_size) == (entry.sha256, entry.bytes)
        header = read_header(path)
        assert (header.architecture, header.working_size) == (entry.architecture, entry.working_size)
        assert header.transfer_radius == entry.transfer_radius
        assert (header.reduction, header.second_look) == (entry.reduction, entry.second_look)
        assert (header.metrics, header.data, header.licence) == (entry.metrics, entry.data, entry.licence)


def test_no_bundled_file_is_missing_from_the_manifest() -> None:
    files = {path.name for path in manifest.BUNDLED_DIRECTORY.glob("*.safetensors")}
    assert files == {entry.file for entry in list_models() if entry.source == "bundled"}


def test_reading(tmp_path: Path) -> None:
    entries = manifest.read_manifest(written(tmp_path / "m.json"))
    assert list(entries) == ["small", "big-one"]
    assert manifest.default_entry(entries) is entries["small"]
    assert entries["big-one"].revision == "0" * 40
    assert entries["small"].metrics["SOTS indoor"]["psnr"] == 30.5


def test_a_manifest_without_a_default_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        manifest.default_entry(manifest.read_manifest(written(tmp_path / "m.json", default=None)))
    assert "-m NAME" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1, "default": null, "models": {"a": {}}}']
)
def test_a_damaged_manifest_is_said_to_be(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="is damaged") as caught:
        manifest.read_manifest(path)
    assert "pip install" in caught.value.hint


def test_a_newer_manifest_asks_for_an_upgrade(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has version 2") as caught:
        manifest.read_manifest(written(tmp_path / "m.json", version=2))
    assert "--upgrade" in caught.value.hint


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        manifest.read_manifest(tmp_path / "m.json")


def test_an_unknown_name_gets_the_choices_and_the_nearest(tmp_path: Path) -> None:
    entries = manifest.read_manifest(written(tmp_path / "m.json"))
    error = manifest.unknown_name("Smal", entries)
    assert error.message == "no model named 'Smal'; did you mean 'small'?"
    assert "small, big-one" in error.hint
    assert "did you mean" not in manifest.unknown_name("zzz", entries).message
