from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from dehaze.tiling import tiled


def _joined(run, pixels: np.ndarray, tile: int) -> np.ndarray:
    bands = list(tiled(run, pixels, tile))
    assert [top for top, _ in bands] == list(np.cumsum([0, *(len(band) for _, band in bands[:-1])]))
    return np.concatenate([band for _, band in bands])


def _blur(part: np.ndarray) -> np.ndarray:
    return cv2.blur(part, (31, 31), borderType=cv2.BORDER_REPLICATE)  # looks 15 pixels far


@pytest.mark.parametrize("tile", [64, 100, 131])
@pytest.mark.parametrize("size", [(300, 210), (65, 500), (64, 64), (20, 333), (1, 1)])
def test_tiles_equal_the_whole_where_the_network_looks_less_than_16_pixels_far(
    size: tuple[int, int], tile: int
) -> None:
    pixels = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    np.testing.assert_allclose(_joined(_blur, pixels, tile), _blur(pixels), atol=1e-5)


def test_no_tile_is_larger_than_asked_for() -> None:
    seen = []

    def run(part: np.ndarray) -> np.ndarray:
        seen.append(part.shape)
        return part

    _joined(run, np.zeros((200, 150, 3), np.float32), 64)
    assert {side for shape in seen for side in shape[:2]} == {64}


def test_tiles_that_disagree_fade_into_each_other() -> None:
    """Each tile answers with its own number; neighbours differ by one part of the ramp at most."""
    count = iter(range(100))
    joined = _joined(
        lambda part: np.full(part.shape, next(count), np.float32), np.zeros((128, 400, 3), np.float32), 128
    )
    steps = np.abs(np.diff(joined[:, :, 0], axis=1))
    assert joined[0, 0, 0] == 0
    assert joined[0, -1, 0] == next(count) - 1
    assert 0 < steps.max() < 0.1


def test_memory_is_that_of_a_band_of_tiles() -> None:
    pixels = np.zeros((3000, 400, 3), np.uint8)
    tracemalloc.start()
    try:
        for _ in tiled(lambda part: part.astype(np.float32), pixels, 64):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 64 * 400 * 3 * 4
