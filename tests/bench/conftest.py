"""Random-weight checkpoints and a small data set, so that everything runs offline in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dehaze.models import build
from dehaze.weights import Header
from dehaze.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Architecture -> path of a checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    paths = {}
    for architecture, working_size in (("lite", 48), ("aod-net", None)):
        path = folder / f"{architecture}.safetensors"
        header = Header(name=architecture, architecture=architecture, working_size=working_size)
        save_checkpoint(path, build(architecture).state_dict(), header)
        paths[architecture] = str(path)
    return paths


@pytest.fixture(scope="session")
def indoor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes at two haze levels, laid out like SOTS indoor."""
    root = tmp_path_factory.mktemp("SOTS") / "indoor"
    for folder in ("gt", "hazy"):
        (root / folder).mkdir(parents=True)
    for scene in range(1400, 1403):
        clear = np.random.default_rng(scene).integers(0, 180, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(clear.astype(np.uint8)).save(root / f"gt/{scene}.png")
        for level, t in ((3, 0.8), (8, 0.4)):
            hazy = (clear * t + 255 * (1 - t)).round().astype(np.uint8)
            Image.fromarray(hazy).save(root / f"hazy/{scene}_{level}.png")
    return root
