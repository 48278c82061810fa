"""`dehaze info` tells what a bug report needs, even from a damaged installation."""

from __future__ import annotations

import builtins
import json
import platform
from typing import Any

import pytest

from dehaze.cli import main
from dehaze.version import __version__


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["info", "--json"]) == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    return json.loads(streams.out)  # type: ignore[no-any-return]


def test_json_holds_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    import av
    import cv2
    import torch

    found = facts(capsys)
    assert found["dehaze"] == __version__
    assert found["python"] == platform.python_version()
    assert found["libraries"]["torch"] == torch.__version__
    assert found["libraries"]["av"] == av.__version__
    assert found["opencv"] == cv2.__version__
    assert found["ffmpeg"].startswith(av.ffmpeg_version_info)
    assert found["threads"] >= 1
    assert found["devices"][0] == "cpu"
    assert found["extras"].keys() == {"heic", "onnx", "train", "plot"}
    assert "huggingface" in found["cache"]


def test_environment_shows_settings_but_no_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEHAZE_MODEL", "student")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert facts(capsys)["environment"]["DEHAZE_MODEL"] == "student"
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "DEHAZE_MODEL student" in text
    assert "hf_secret" not in text


def test_people_get_one_line_a_fact(capsys: pytest.CaptureFixture[str]) -> None:
    names = list(facts(capsys))
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names


def test_a_library_that_does_not_load_is_a_fact_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def broken(name: str, *arguments: Any) -> Any:
        if name in ("torch", "cv2", "av"):
            raise ImportError(f"{name} is damaged")
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = facts(capsys)
    assert "torch is damaged" in found["devices"][0]
    assert "cv2 is damaged" in found["opencv"]
    assert "av is damaged" in found["ffmpeg"]
