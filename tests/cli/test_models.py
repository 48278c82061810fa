"""`dehaze models` without a Hub; with one: tests/weights/test_hub.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dehaze.cli import main
from dehaze.models import build
from dehaze.weights import manifest
from dehaze.weights.checkpoint import Header, save_checkpoint, sha256_of


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One bundled model, `small`, and one that is on the Hub only, `far`."""
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, build("lite").state_dict(), Header("small", "lite", working_size=160))
    entry = {
        "source": "bundled",
        "file": path.name,
        "role": "general",
        "description": "Small and quick.",
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "parameters": 120106,
        "architecture": "lite",
        "working_size": 160,
        "licence": "MIT",
        "data": {},
        "metrics": {},
    }
    far = {**entry, "source": "hub", "repository": "a/b", "revision": "0" * 40, "role": "benchmark"}
    values = {"version": 1, "default": "small", "models": {"small": entry, "far": far}}
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(values))
    monkeypatch.setattr(manifest, "manifest_path", lambda: file)
    monkeypatch.setattr(manifest, "BUNDLED_DIRECTORY", tmp_path)
    return path


def test_list_is_a_table_on_stdout(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    small, far = (
        next(line for line in out.splitlines() if line.startswith(name)) for name in ("small", "far")
    )
    assert "default" in small
    assert "default" not in far
    assert ("bundled" in small, "hub" in far) == (True, True)
    assert "120106" in small


def test_list_json_has_everything(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    small, far = map(json.loads, capsys.readouterr().out.splitlines())
    assert small["sha256"] == sha256_of(bundled)
    assert (small["is_default"], small["here"], far["here"]) == (True, True, False)


def test_path_prints_a_path_and_nothing_else(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path"]) == 0
    assert capsys.readouterr() == (f"{bundled}\n", "")
    assert main(["models", "path", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(bundled)}


def test_path_does_not_fetch(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "far"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "far is not downloaded" in err
    assert "dehaze models pull far" in err


def test_pull_of_a_bundled_model_tells_its_checksum(
    bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "small"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert sha256_of(bundled) in err
    assert str(bundled) in err
    assert main(["models", "pull", "small", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verify_all(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "--json"]) == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["ok", "not downloaded"]


def test_verify_finds_damage(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundled.write_bytes(bundled.read_bytes()[:-1] + b"?")
    assert main(["models", "verify"]) == 4
    err = capsys.readouterr().err
    assert "1 of 2 models are not as they should be: small" in err
    assert "pip install --force-reinstall" in err


def test_verify_of_a_named_model_that_is_not_here_fails(
    bundled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify", "far"]) == 4
    assert "dehaze models pull" in capsys.readouterr().err


def test_verify_of_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "--json", str(tmp_path / "gone.safetensors")]) == 4
    assert json.loads(capsys.readouterr().out.splitlines()[0])["state"] == "missing"


def test_an_unknown_name_lists_the_choices(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "smal"]) == 4
    err = capsys.readouterr().err
    assert "did you mean 'small'?" in err
    assert "choose one of: small, far" in err


def test_push_does_nothing_without_a_token(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "push", "a/b", str(bundled), "--yes"]) == 4
    err = capsys.readouterr().err
    assert "needs a token" in err
    assert "HF_TOKEN" in err


def test_push_wants_a_repository_of_two_parts(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "push", "alone", str(bundled)]) == 4
    assert "owner/name" in capsys.readouterr().err


def test_push_names_the_file_here_that_is_no_model(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "push", "a/b", "a.jpg", "--dry-run"]) == 4
    assert capsys.readouterr().err.startswith("error: a.jpg is not a .safetensors file\n")
