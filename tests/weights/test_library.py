from __future__ import annotations

from pathlib import Path

import pytest
from shelf import Shelf, checkpoint

from dehaze.errors import ModelError
from dehaze.weights import library, list_models, load, resolve
from dehaze.weights.checkpoint import sha256_of


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path / "shelf", monkeypatch)
    words = ("--role", "general", "--description", "x")
    shelf.update(checkpoint(tmp_path / "a.safetensors"), *words, "--default")
    shelf.update(checkpoint(tmp_path / "b.safetensors", "large", seed=1), *words)
    return shelf


def test_a_name_is_its_bundled_file(shelf: Shelf) -> None:
    assert resolve("large") == shelf.weights / "large.safetensors"
    assert load("large")[1].name == "large"


def test_no_name_is_the_default_unless_the_environment_names_one(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert resolve() == shelf.weights / "small.safetensors"
    monkeypatch.setenv("DEHAZE_MODEL", "large")
    assert resolve() == shelf.weights / "large.safetensors"
    assert resolve("small") == shelf.weights / "small.safetensors"
    monkeypatch.setenv("DEHAZE_MODEL", str(tmp_path / "a.safetensors"))
    assert resolve() == tmp_path / "a.safetensors"


def test_paths_of_all_kinds(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bare").write_bytes((tmp_path / "a.safetensors").read_bytes())
    assert resolve("a.safetensors") == Path("a.safetensors")
    assert resolve("./a.safetensors") == Path("a.safetensors")
    assert resolve("bare") == Path("bare")
    assert resolve("~/a.safetensors") == tmp_path / "a.safetensors"


def test_a_file_does_not_hide_a_model_of_that_name(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").write_text("not a model")
    monkeypatch.chdir(tmp_path)
    assert resolve("small") == shelf.weights / "small.safetensors"


def test_names_that_stand_for_nothing(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model named 'smal'; did you mean 'small'") as caught:
        resolve("smal")
    assert "small, large" in caught.value.hint
    with pytest.raises(ModelError, match="no checkpoint at"):
        resolve(str(tmp_path / "none.safetensors"))
    with pytest.raises(ModelError, match=r"no checkpoint at .*model\.pth"):
        resolve("model.pth")


def test_the_manifest_alone_decides_what_is_published(shelf: Shelf) -> None:
    assert [(entry.name, entry.is_default) for entry in list_models()] == [("small", True), ("large", False)]


def test_fetching_what_is_here_says_what_it_is(shelf: Shelf) -> None:
    found = library.fetch("large")
    path = shelf.weights / "large.safetensors"
    assert found == library.Found("large", path, sha256_of(path), path.stat().st_size, "")


def test_a_missing_bundled_file_asks_for_a_new_installation(shelf: Shelf) -> None:
    (shelf.weights / "large.safetensors").unlink()
    for function in (resolve, library.locate):
        with pytest.raises(ModelError, match="missing from the installation") as caught:
            function("large")
        assert "pip install" in caught.value.hint
    assert not library.is_here(list_models()[1])
    assert library.verify("large").state == "damaged"


def test_verify_compares_with_the_manifest(shelf: Shelf, tmp_path: Path) -> None:
    assert library.verify("small").state == "ok"
    path = shelf.weights / "small.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    verdict = library.verify("small")
    assert verdict.state == "damaged"
    assert sha256_of(path) in verdict.detail
    assert library.verify(str(tmp_path / "a.safetensors")).state == "unknown"


def test_verify_loads_what_has_no_checksum_to_compare(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = path.read_bytes()
    for data in (whole[:-1000], whole[:-1000] + b"\xff" * 1000):  # cut short; weights that are no numbers
        path.write_bytes(data)
        assert library.verify(str(path)).state == "damaged"


def test_bundled_models_need_no_client(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert resolve() == shelf.weights / "small.safetensors"
    assert library.locate("large") == shelf.weights / "large.safetensors"
