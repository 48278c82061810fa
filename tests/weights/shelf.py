"""A manifest and its bundled files, made for one test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dehaze.models import build
from dehaze.weights import manifest, update
from dehaze.weights.checkpoint import Header, save_checkpoint

METRICS = {"SOTS indoor": {"psnr": 30.5, "ssim": 0.97, "command": "dehaze bench --data SOTS"}}


def checkpoint(path: Path, name: str = "small", seed: int = 0, **fields: Any) -> Path:
    torch.manual_seed(seed)
    header = Header(**{"name": name, "architecture": "lite", "working_size": 160, "licence": "MIT", **fields})
    save_checkpoint(path, build("lite").state_dict(), header)
    return path


class Shelf:
    """Stands in for the package's own manifest and folder of weights."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights = folder / "weights"
        self.weights.mkdir(parents=True)
        self.path = folder / "weights_manifest.json"
        self.path.write_text('{"version": 1, "default": null, "models": {}}')
        monkeypatch.setattr(manifest, "manifest_path", lambda: self.path)
        monkeypatch.setattr(update, "manifest_path", lambda: self.path)
        monkeypatch.setattr(manifest, "BUNDLED_DIRECTORY", self.weights)

    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.path.read_text())
        return values

    def update(self, *arguments: object) -> int:
        return update.main([str(argument) for argument in arguments], weights=self.weights)
