"""Working copies: means against OpenCV's, minima against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dehaze.upsample import white
from dehaze.working_copy import PLACES, cells, places, reduce, shrink

SIDE = 24


def _random(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    values = np.random.default_rng(0).random(shape, np.float32)
    return values if dtype is np.float32 else np.rint(values * white(np.dtype(dtype))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (17, 31), (1, 1), (99, 80), (100, 130)])
def test_shrink_averages_areas(dtype: type, height: int, width: int) -> None:
    pixels = _random((100, 130, 3), dtype)
    exact = (pixels / white(np.dtype(dtype))).astype(np.float32)
    expected = cv2.resize(exact, (width, height), interpolation=cv2.INTER_AREA)
    result = shrink(pixels, height, width)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("side", [4, 8, 12])
def test_each_channels_minimum_stands_for_a_cell(dtype: type, side: int) -> None:
    """Cells of 4, 8 and 12 pixels, places of 1, 2 and 3; each channel is dark in one place of each cell."""
    rng = np.random.default_rng(0)
    place = side // PLACES
    top = dtype(1) if dtype is np.float32 else np.iinfo(dtype).max
    pixels = np.full((5 * side, 7 * side, 3), top, dtype)
    expected = np.empty((5, 7, 3), np.float32)
    for row, column, channel in np.ndindex(5, 7, 3):
        y, x = (at * side + int(rng.integers(PLACES)) * place for at in (row, column))
        value = dtype(rng.random()) if dtype is np.float32 else rng.integers(0, top, dtype=dtype)
        pixels[y : y + place, x : x + place, channel] = value
        expected[row, column, channel] = value / top
    np.testing.assert_allclose(reduce(pixels, 5, 7, "minimum"), expected, atol=1e-6)
    np.testing.assert_array_equal(reduce(pixels, 5, 7), shrink(pixels, 5, 7))


@pytest.mark.parametrize(("height", "width"), [(24, 24), (23, 24), (17, 11), (7, 7), (1, 1)])
def test_a_cell_of_few_pixels_shows_its_own(height: int, width: int) -> None:
    """Each channel is one pixel's that the cell touches, as dark as all whose centre a place lies in."""
    pixels = _random((SIDE, SIDE, 3), np.float32)
    copy = reduce(pixels, height, width, "minimum")
    assert copy.shape == (height, width, 3)
    if height * PLACES < SIDE:
        return
    for row, column in np.ndindex(height, width):
        rows, columns = (
            slice(int(at * SIDE / n), int(np.ceil((at + 1) * SIDE / n)))
            for at, n in ((row, height), (column, width))
        )
        touched = pixels[rows, columns].reshape(-1, 3)
        for channel in range(3):
            assert copy[row, column, channel] in touched[:, channel]
        if SIDE % height == SIDE % width == 0:
            np.testing.assert_array_equal(copy[row, column], touched.min(axis=0))
    if height == SIDE:
        np.testing.assert_array_equal(copy, pixels)


@pytest.mark.parametrize("shape", [(300, 420), (90, 110), (41, 160)])
def test_a_picture_looks_the_same_in_any_type(shape: tuple[int, int]) -> None:
    """Faint contrast, where many places of a cell differ by less than a level or not at all."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.uniform(180, 200, (12, 16, 3)).astype(np.float32), shape[::-1])
    bytes_ = np.rint(smooth + rng.normal(0, 1, (*shape, 3))).astype(np.uint8)
    expected = reduce(bytes_, 20, 28, "minimum")
    for same in (bytes_.astype(np.uint16) * 257, bytes_ / np.float32(255)):
        np.testing.assert_allclose(reduce(same, 20, 28, "minimum"), expected, atol=1e-6)


def test_haze_and_reduction_can_trade_places() -> None:
    """Where transmission and a gray airlight are the same all over: reduce(I) = reduce(J) t + A (1 - t)."""
    clear = _random((60, 80, 3), np.float32)
    for t, airlight in ((0.3, 1.0), (0.8, 0.7)):
        hazy = (clear * t + airlight * (1 - t)).astype(np.float32)
        expected = reduce(clear, 9, 12, "minimum") * t + airlight * (1 - t)
        np.testing.assert_allclose(reduce(hazy, 9, 12, "minimum"), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (6, 6), (30, 41)])
def test_places_are_sorted_by_cell(size: tuple[int, int]) -> None:
    """Fewer places than pixels, as many, and more: what lies beside is taken from the same places."""
    pixels = _random((48, 60, 3), np.float32)
    of_cells = cells(places(pixels, *size), *size)
    assert of_cells.shape == (*size, PLACES**2, 3)
    np.testing.assert_array_equal(of_cells.min(axis=2), reduce(pixels, *size, "minimum"))
    beside = cells(places(pixels.sum(2, keepdims=True), *size), *size)
    np.testing.assert_allclose(beside[..., 0], of_cells.sum(3), rtol=1e-5)


def test_many_pixels_are_averaged_before_the_minimum_is_taken() -> None:
    """So that noise does not decide: means of 256 pixels with noise of 20 levels differ by a level or so."""
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + rng.normal(0, 20, (640, 640, 3)), 0, 255).astype(np.uint8)
    dark = 255 * reduce(noisy, 10, 10, "minimum")
    assert 122 < dark.min() < dark.max() < 129
