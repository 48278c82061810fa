"""Before/after pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dehaze.compare import before_after, compare_path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_halves_are_the_pictures_and_the_line_is_white(dtype: type[np.unsignedinteger]) -> None:
    before = np.full((40, 60, 3), 10, dtype)
    after = np.full((40, 60, 3), 20, dtype)
    both = before_after(before, after)
    assert both.dtype == dtype
    assert both.shape == (40, 122, 3)
    assert (both[:, :60] == before).all()
    assert (both[:, 60:62] == np.iinfo(dtype).max).all()
    assert (both[:, 62:] == after).all()


def test_panoramas_are_stacked() -> None:
    before, after = np.zeros((10, 50, 3), np.uint8), np.ones((10, 50, 3), np.uint8)
    both = before_after(before, after)
    assert both.shape == (22, 50, 3)
    assert (both[:10] == 0).all()
    assert (both[12:] == 1).all()


@pytest.mark.parametrize("shape", [(900, 1600, 3), (1600, 900, 3), (300, 3000), (1000, 1000, 3), (3, 2000)])
def test_long_sides_are_capped_in_proportion(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 100, np.uint8)
    both = before_after(picture, picture, max_side=500)
    assert max(both.shape[:2]) <= 500
    assert max(both.shape[:2]) >= 490
    line = 2
    stacked = shape[1] > 2 * shape[0]
    half = (
        ((both.shape[0] - line) / 2, both.shape[1])
        if stacked
        else (both.shape[0], (both.shape[1] - line) / 2)
    )
    assert half[0] == pytest.approx(max(1, half[1] * shape[0] / shape[1]), abs=1)


def test_one_pixel() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert before_after(pixel, pixel).shape == (1, 4, 3)


def test_name() -> None:
    assert compare_path("foggy", Path("out/clear.png")) == Path("out/foggy_compare.png")
