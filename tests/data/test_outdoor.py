from __future__ import annotations

import numpy as np
import pytest

from dehaze.data.outdoor import pseudo_depth, sky_mask

HEIGHT, WIDTH = 120, 160


@pytest.fixture
def landscape() -> np.ndarray:
    """Blue sky to row 50, rough green ground below, a dark tower from row 20 to row 90."""
    rng = np.random.default_rng(0)
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    photo[:50] = np.linspace((90, 140, 220), (190, 210, 240), 50).astype(np.uint8)[:, None]
    photo[50:] = np.array((90, 120, 60)) + rng.integers(-25, 25, (70, WIDTH, 1))
    photo[20:90, 60:90] = np.array((70, 40, 35)) + rng.integers(-12, 12, (70, 30, 1))
    return photo


def test_the_sky_is_found_and_nothing_else(landscape: np.ndarray) -> None:
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[:50] = True
    truth[20:50, 60:90] = False
    found = sky_mask(landscape)
    assert (found & truth).sum() / (found | truth).sum() > 0.93


@pytest.mark.parametrize("shade", [(40, 90, 30), (240, 240, 238)])
def test_a_plain_wall_is_no_sky(shade: tuple[int, int, int]) -> None:
    assert not sky_mask(np.full((HEIGHT, WIDTH, 3), shade, np.uint8)).any()


def test_depth_of_a_landscape(landscape: np.ndarray) -> None:
    """Over many draws: the sky is farthest, ground recedes upwards, a tower is at one depth throughout."""
    depths = np.stack([pseudo_depth(landscape, np.random.default_rng(s)) for s in range(12)]).astype(float)
    assert depths.shape == (12, HEIGHT, WIDTH)
    sky, near, middle = depths[:, 5:15, 20:140], depths[:, 105:115, 100:150], depths[:, 65:75, 100:150]
    assert sky.min() > 235
    assert np.all(near.mean((1, 2)) < middle.mean((1, 2)))
    assert np.all(middle.mean((1, 2)) < sky.mean((1, 2)))
    tower = depths[:, 28:85, 66:84]
    assert np.median(tower.std((1, 2))) < 15
    assert np.all(tower.mean((1, 2)) < 200)


def test_depth_breaks_where_the_picture_does(landscape: np.ndarray) -> None:
    depth = pseudo_depth(landscape, np.random.default_rng(3)).astype(float)
    steps = np.abs(np.diff(depth[30:45].mean(0)))
    edges = {59, 89}  # between columns 59 | 60 and 89 | 90
    assert {int(i) for i in np.argsort(steps)[-2:]} == edges


def test_draws_differ_and_repeat(landscape: np.ndarray) -> None:
    a, b, c = (pseudo_depth(landscape, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (9, 9)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    depth = pseudo_depth(photo, np.random.default_rng(0))
    assert depth.shape == shape
    assert depth.dtype == np.uint8


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_picture_of_one_colour(shade: int) -> None:
    photo = np.full((60, 80, 3), shade, np.uint8)
    assert pseudo_depth(photo, np.random.default_rng(0)).shape == (60, 80)
