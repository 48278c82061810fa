from __future__ import annotations

import numpy as np
import pytest

from dehaze.data.canvas import Canvas, Noise, View, broadleaf, conifer
from dehaze.data.scenes import KINDS, Kind, render

SIZE = (72, 96)


@pytest.fixture
def view() -> View:
    return View(width=80, height=60, focal=70.0, horizon=30.0, eye=2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_has_sky_ground_and_everything_between(kind: Kind) -> None:
    scene = render(np.random.default_rng(2), SIZE, kind=kind)
    assert scene.clear.shape == (*SIZE, 3)
    assert scene.clear.dtype == np.uint8
    assert scene.depth.shape == SIZE
    assert 0 < scene.depth.min() < 0.1  # the ground at the camera's feet
    assert scene.depth.max() > 0.99  # the sky
    assert len(np.unique(np.round(scene.depth, 2))) > 20
    assert scene.clear.std() > 15


def test_equal_seeds_give_equal_scenes() -> None:
    a, b, c = (render(np.random.default_rng(s), SIZE, kind="road") for s in (4, 4, 5))
    assert np.array_equal(a.clear, b.clear)
    assert np.array_equal(a.depth, b.depth)
    assert not np.array_equal(a.clear, c.clear)


def test_textures_show() -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[..., 2] = 255
    plain, covered = (
        render(np.random.default_rng(1), SIZE, kind="street", textures=t) for t in ((), (photo,))
    )
    assert np.array_equal(plain.clear.shape, covered.clear.shape)
    blue = [int(((p[..., 2] > 120) & (p[..., :2].max(-1) < 40)).sum()) for p in (plain.clear, covered.clear)]
    assert blue[1] > blue[0] + 50


def test_supersampling_keeps_the_scene() -> None:
    one = render(np.random.default_rng(3), SIZE, kind="street", supersample=2)
    assert one.clear.shape == (*SIZE, 3)
    assert one.depth.shape == SIZE


def test_flat_ground_has_its_exact_distance(view: View) -> None:
    """A face in the ground plane is seen at z = focal * eye / (row - horizon)."""
    canvas = Canvas(view, far=1e4)
    ground = np.array([(-40, 0, 60), (40, 0, 60), (40, 0, 1.5), (-40, 0, 1.5)], float)
    canvas.face(ground, np.full((4, 4, 3), 0.5, np.float32))
    for row in (36, 45, 59):
        z = view.focal * view.eye / (row + 0.5 - view.horizon)
        assert canvas.z[row, 40] == pytest.approx(z, rel=1e-3)
        ray = np.sqrt(1 + (0.5 / view.focal) ** 2 + ((row + 0.5 - view.horizon) / view.focal) ** 2)
        assert canvas.distance()[row, 40] == pytest.approx(z * ray, rel=1e-3)


def test_the_nearer_of_two_faces_is_seen(view: View) -> None:
    def wall(z: float) -> np.ndarray:
        return np.array([(-1, 3, z), (1, 3, z), (1, 1, z), (-1, 1, z)], float)

    canvas = Canvas(view, far=1e4)
    for z, shade in ((5.0, 0.2), (9.0, 0.9)):
        canvas.face(wall(z), np.full((2, 2, 3), shade, np.float32))
    assert canvas.colour[30, 40, 0] == pytest.approx(0.2)
    assert canvas.z[30, 40] == pytest.approx(5.0)
    assert canvas.z[2, 2] == 1e4


def test_what_is_behind_the_camera_is_not_painted(view: View) -> None:
    canvas = Canvas(view, far=1e4)
    canvas.face(
        np.array([(-1, 3, -2), (1, 3, -2), (1, 1, 4), (-1, 1, 4)], float), np.ones((2, 2, 3), np.float32)
    )
    canvas.sprite(np.ones((8, 4, 4), np.float32), 0, 0, -3.0, 5)
    assert canvas.colour.max() == 0


def test_a_sprite_stands_on_its_foot(view: View) -> None:
    canvas = Canvas(view, far=1e4)
    canvas.sprite(np.ones((30, 10, 4), np.float32), x=0.0, y=0.0, z=10.0, size=3.0)
    rows = np.flatnonzero((canvas.z < 1e4).any(1))
    assert rows.max() + 1 == pytest.approx(view.horizon + view.focal * 2.0 / 10, abs=1)
    assert len(rows) == pytest.approx(view.focal * 3.0 / 10, abs=1)


def test_noise_is_continuous_and_bounded() -> None:
    noise = Noise(np.random.default_rng(0))
    x = np.linspace(-600, 600, 40_001)
    values = noise(x, 0.3 * x)
    assert np.abs(values).max() <= 1
    assert np.abs(np.diff(values)).max() < 0.15
    assert values.std() > 0.2


def test_noise_finer_than_a_pixel_fades_out() -> None:
    noise = Noise(np.random.default_rng(0))
    x = np.linspace(0, 50, 500)
    assert np.abs(noise.fractal(x, x, 5, footprint=2.0)).max() == 0
    coarse, fine = noise.fractal(x, x, 5, footprint=0.3), noise.fractal(x, x, 5)
    assert 0 < np.abs(np.diff(coarse)).mean() < np.abs(np.diff(fine)).mean()


@pytest.mark.parametrize("make", [conifer, broadleaf])
def test_trees_are_premultiplied_sprites(make) -> None:  # type: ignore[no-untyped-def]
    tree = make(np.random.default_rng(1), -1.0, 120)
    alpha = tree[..., 3]
    assert tree.shape[0] == 120
    assert tree.min() >= 0
    assert alpha.max() == pytest.approx(1)
    assert 0.1 < (alpha > 0.5).mean() < 0.8
    assert tree[alpha == 0].max() == 0
