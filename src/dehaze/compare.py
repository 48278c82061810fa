"""Before and after in one picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dehaze.photo import Photo

MAX_SIDE = 4096
"""Long side of a before/after picture in pixels; both halves are reduced to fit."""

_PANORAMA = 2.0
_DIVIDER = 1 / 300

Pixels = npt.NDArray[Any]


def compare_path(source_stem: str, output: Path) -> Path:
    """Where the before/after picture of an output goes: `<source stem>_compare<ext>` beside it."""
    return output.with_name(f"{source_stem}_compare{output.suffix}")


def compare_photos(before: Photo, after: Photo) -> Photo:
    """Put two photos of one size into one, in the first one's colour space, alpha kept."""
    alpha = None
    if before.alpha is not None and after.alpha is not None:
        alpha = before_after(before.alpha, after.alpha)
    return replace(after, pixels=before_after(before.pixels, after.pixels), alpha=alpha)


def before_after(before: Pixels, after: Pixels, *, max_side: int = MAX_SIDE) -> Pixels:
    """Put two pictures side by side (panoramas one above the other) with a white line between.

    Args:
        before: (H, W) or (H, W, C), uint8 or uint16; goes left or above.
        after: Same shape and dtype.
        max_side: The result's longer side at most, in pixels.

    Returns:
        (H', W') or (H', W', C) of the same dtype.
    """
    assert before.shape == after.shape
    assert before.dtype == after.dtype
    height, width = before.shape[:2]
    axis = 0 if width > _PANORAMA * height else 1
    line = max(2, round(min(max(height, width), max_side) * _DIVIDER))
    scale = min(1.0, max_side / max(height, width), (max_side - line) / (2 * before.shape[axis]))
    before, after = _reduce(before, scale), _reduce(after, scale)
    shape = list(before.shape)
    shape[axis] = line
    white = np.full(shape, np.iinfo(before.dtype).max, before.dtype)
    return np.concatenate([before, white, after], axis=axis)


def _reduce(pixels: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return pixels
    height, width = (max(1, int(side * scale)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
