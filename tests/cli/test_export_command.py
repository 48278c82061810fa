"""`dehaze export onnx` as a stranger uses it, with a network of random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

from dehaze.cli import main
from dehaze.models import build
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model" / "toy.safetensors"
    tensors = {
        name: value + 0.01 * torch.randn(value.shape) for name, value in build("lite").state_dict().items()
    }
    save_checkpoint(path, tensors, Header("toy", "lite", working_size=32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEHAZE_MODEL", str(path))


def test_writes_a_file_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", "-o", "toy.onnx", "--check"]) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "toy.onnx: toy, part full" in streams.err
    assert "differs by 0.0" in streams.err
    onnx.checker.check_model(onnx.load("toy.onnx"))


def test_json_stands_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", "-o", "toy.onnx", "--part", "network", "--check", "--json"]) == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    record = json.loads(streams.out)
    assert record["output"] == "toy.onnx"
    assert record["model"] == "toy"
    assert record["part"] == "network"
    assert record["bytes"] == Path("toy.onnx").stat().st_size
    assert {"width", "height", "max_difference"} == record["check"][0].keys()


def test_file_that_exists_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.onnx").write_text("mine")
    assert main(["export", "onnx", "-o", "toy.onnx"]) == 2
    assert "exists" in capsys.readouterr().err
    assert Path("toy.onnx").read_text() == "mine"
    assert main(["export", "onnx", "-o", "toy.onnx", "-y", "-q"]) == 0
    assert capsys.readouterr().err == ""
    onnx.load("toy.onnx")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["-o", "."], 2),
        (["-o", "-"], 2),
        (["-o", "nowhere/x.onnx"], 2),
        (["-o", "x.onnx", "--part", "half"], 2),
        (["-o", "x.onnx", "-m", "missing.safetensors"], 4),
    ],
)
def test_what_cannot_be_done_leaves_nothing(arguments: list[str], status: int) -> None:
    assert main(["export", "onnx", *arguments]) == status
    assert [path.name for path in Path().iterdir()] == ["model"]


def test_a_check_that_cannot_be_made_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "onnx", "-o", "x.onnx", "--check"]) == 2
    assert "'onnxruntime', which is not installed" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["model"]
