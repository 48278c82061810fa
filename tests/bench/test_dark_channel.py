from __future__ import annotations

import numpy as np
import pytest

from dehaze.bench.dark_channel import DarkChannel, guided_filter
from dehaze.metrics import psnr


def colourful(height: int = 120, width: int = 160) -> np.ndarray:
    """Blocks of saturated colours: every window has a dark channel near zero, as the prior assumes."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (height // 4, width // 4, 3))
    blocks[np.arange(height // 4)[:, None], np.arange(width // 4), rng.integers(0, 3, blocks.shape[:2])] = 0
    return blocks.repeat(4, 0).repeat(4, 1).astype(np.uint8)


def add_haze(clear: np.ndarray, airlight: float) -> np.ndarray:
    depth = np.linspace(0.2, 4, clear.shape[0])[:, None, None]
    t = np.exp(-depth) * np.ones((1, clear.shape[1], 1))
    return (clear * t + 255 * airlight * (1 - t)).round().astype(np.uint8)


@pytest.mark.parametrize("airlight", [0.8, 1.0])
def test_haze_that_obeys_the_prior_is_removed(airlight: float) -> None:
    clear = colourful()
    hazy = add_haze(clear, airlight)[:60]  # the far rows only serve the airlight
    assert (
        psnr(DarkChannel(radius=8)(add_haze(clear, airlight))[:60], clear[:60]) > psnr(hazy, clear[:60]) + 6
    )


def test_a_picture_without_haze_is_hardly_changed() -> None:
    clear = colourful()
    assert psnr(DarkChannel()(clear), clear) > 35


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (17, 5)])
@pytest.mark.parametrize("value", [0, 255])
def test_any_size_and_flat_pictures_survive(size: tuple[int, int], value: int) -> None:
    answer = DarkChannel()(np.full((*size, 3), value, np.uint8))
    assert answer.shape == (*size, 3)
    assert answer.dtype == np.uint8


def test_guided_filter_is_exact_where_source_is_linear_in_the_guide() -> None:
    guide = np.random.default_rng(1).random((40, 50), dtype=np.float32)
    answer = guided_filter(guide, 0.5 * guide + 0.2, radius=4, eps=1e-8)
    assert np.abs(answer - (0.5 * guide + 0.2)).max() < 1e-4


def test_guided_filter_with_a_flat_guide_is_a_box_filter() -> None:
    source = np.zeros((41, 41), np.float32)
    source[20, 20] = 1
    answer = guided_filter(np.ones_like(source), source, radius=2, eps=1e-2)
    assert answer.sum() == pytest.approx(1, rel=1e-5)
    assert np.count_nonzero(answer > 1e-7) == 81
