"""Training data from what a user names: what the recipe says about it reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dehaze.data.depth import DepthSource
from dehaze.haze import RealHaze
from dehaze.training.recipe import Recipe, Stage
from dehaze.training.sources import MAX_HELD_OUT, DataSpec, build_data

CPU = torch.device("cpu")
RECIPE = Recipe(stages=(Stage(((16, 24),), 2, steps=1),))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with depth, and pairs of as many scenes as fill all places for validation thrice."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("photos", "depth", "pairs/clear", "pairs/hazy"):
        (root / folder).mkdir(parents=True)
    for scene in range(4):
        cv2.imwrite(str(root / f"photos/{scene}.png"), np.full((16, 24, 3), 50 * scene, np.uint8))
        cv2.imwrite(str(root / f"depth/{scene}.png"), np.full((16, 24), 255, np.uint8))
    for scene in range(100):
        flat = np.full((4, 6, 3), 2 * scene, np.uint8)
        cv2.imwrite(str(root / f"pairs/clear/{scene}.png"), flat)
        for level in range(60 if scene > 97 else 1):
            cv2.imwrite(str(root / f"pairs/hazy/{scene}_{level}.png"), flat)
    return root


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"haze": "mixed"}, {"rule": "mixed", "kept_share": "0.1"}),
        ({"haze": "real", "kept_share": 0.25}, {"rule": "real", "kept_share": "0.25"}),
        ({"view": "crop"}, {"view": "crop", "zooms": "0.0"}),
        ({"zooms": (1.0, 1.5)}, {"zooms": "1.0 1.5"}),
        ({"warps": 3}, {"zooms": "1.0", "warps": 3}),
        ({"clear_share": 0.25}, {"clear_share": "0.25"}),
        ({"white_share": 0.25}, {"white_share": "0.25"}),
        ({"beta": (0.5, 1.5)}, {"beta": "0.5 1.5"}),
        ({"varied_share": 0.25}, {"varied_share": "0.25"}),
        ({"painted_share": 0.25}, {"painted_share": "0.25"}),
        ({"reduction": "minimum"}, {"reduction": "minimum"}),
    ],
)
def test_the_recipe_decides_what_is_made_of_clear_pictures(
    root: Path, change: dict[str, Any], told: dict[str, str]
) -> None:
    spec = DataSpec(clear=(root / "photos",), depth=(str(root / "depth"),))
    plain = build_data(spec, RECIPE, CPU)[0].identity
    assert plain["frames"] == 3  # one is held out
    assert build_data(spec, replace(RECIPE, **change), CPU)[0].identity == {**plain, **told}


def test_the_recipe_says_what_real_haze_is_drawn_from(root: Path) -> None:
    spec = DataSpec(clear=(root / "photos",), depth=(str(root / "depth"),))
    fog = RealHaze(beta=(4.0, 5.0))
    source = build_data(spec, replace(RECIPE, haze="real", real=fog), CPU)[0]
    assert isinstance(source, DepthSource)
    assert source.real == fog


def test_pairs_that_are_judged_are_few_and_of_all_scenes_that_are_held_out(root: Path) -> None:
    source, judge = build_data(DataSpec(roots=(root / "pairs",)), RECIPE, CPU)
    assert len(source) == 98
    assert judge.pictures() == MAX_HELD_OUT
    judged = {int(clear[0, 0, 0]) // 2 for s in judge._sets for _, clear in s.pairs}  # type: ignore[union-attr]
    assert judged == {98, 99}
