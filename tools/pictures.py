"""Render the pictures of README and model cards and dehaze them: `python tools/pictures.py` (some minutes).

Nothing in them is photographed: docs/pictures/road.jpg and dense.jpg are one rendered scene in fog and in fog
that hides nearly everything; *_compare.jpg are before and after with the default model.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import dehaze
from dehaze.compare import before_after
from dehaze.data.scenes import example

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
BETAS = {"road": 2.1, "dense": 7.0}


def main() -> None:
    """Write all pictures."""
    *hazy, _ = example(betas=list(BETAS.values()))
    for name, pixels in zip(BETAS, hazy, strict=True):
        Image.fromarray(pixels).save(PICTURES / f"{name}.jpg", quality=92)
        pair = before_after(pixels, dehaze.dehaze(pixels), max_side=1600)
        Image.fromarray(pair).save(PICTURES / f"{name}_compare.jpg", quality=88)
        print(PICTURES / f"{name}_compare.jpg")


if __name__ == "__main__":
    main()
