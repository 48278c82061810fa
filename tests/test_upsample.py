from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from dehaze.metrics import psnr, ssim
from dehaze.upsample import LocalAffine, apply, fit, noise_variance, white
from dehaze.working_copy import shrink

FACTOR = 4


@dataclass
class Scene:
    hazy: np.ndarray
    clear: np.ndarray
    edges: np.ndarray  # pixels within two working pixels of a depth edge
    veil: np.ndarray  # A (1 - t)
    transmission: np.ndarray


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 2)
    relief = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 12)
    return 0.06 * grain / grain.std() + 0.08 * relief / relief.std()


def _scene(seed: int, height: int = 240, width: int = 320) -> Scene:
    """Textured discs at different distances before a far wall; haze by the scattering model."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    clear = 0.55 + _texture(rng, height, width)
    depth = 1 - 0.2 * y / height
    for distance in np.linspace(0.8, 0.2, 6):
        radius = rng.uniform(25, 60)
        disc = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        clear[disc] = (rng.uniform(0.15, 0.75, 3) + _texture(rng, height, width))[disc]
        depth[disc] = distance
    clear = np.clip(clear, 0, 1)
    t = np.exp(-1.5 * depth)[..., None]
    veil = 0.95 * (1 - t)
    hazy = clear * t + veil
    jump = cv2.morphologyEx(depth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0.05
    edges = cv2.dilate(jump.astype(np.uint8), np.ones((4 * FACTOR + 1,) * 2, np.uint8)) > 0
    return Scene(_levels(hazy), _levels(clear), edges, veil, t)


def _levels(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _small(picture: np.ndarray) -> np.ndarray:
    return shrink(picture, picture.shape[0] // FACTOR, picture.shape[1] // FACTOR)


def _transfer(hazy: np.ndarray, clear: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """What comes out if the network answers with the truth."""
    return apply(hazy, fit(_small(hazy), _small(clear), noise=noise))


def _difference(hazy: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """The plain alternative: enlarge what the network added and add it."""
    added = cv2.resize(_small(clear) - _small(hazy), hazy.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return _levels(hazy / 255 + added)


def _inverted(hazy: np.ndarray, scene: Scene) -> np.ndarray:
    """What knowing the haze exactly, at every pixel, would give: noise and blocks grow by 1 / t."""
    return _levels((hazy / 255 - scene.veil) / scene.transmission)


def _random(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    return (values * white(np.dtype(dtype))).astype(dtype)


def _random_affine(height: int, width: int) -> LocalAffine:
    rng = np.random.default_rng(1)
    gain = rng.uniform(0.5, 3, (height, width, 3)).astype(np.float32)
    offset = rng.uniform(-1, 0.5, (height, width, 3)).astype(np.float32)
    return LocalAffine(gain, offset)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_depth_edges_stay_free_of_halos(seed: int) -> None:
    scene = _scene(seed)
    ours, plain = (f(scene.hazy, scene.clear) for f in (_transfer, _difference))

    def edge_error(answer: np.ndarray) -> float:
        return float(np.abs(answer[scene.edges].astype(float) - scene.clear[scene.edges]).mean())

    assert psnr(ours, scene.clear) > psnr(plain, scene.clear) + 3
    assert psnr(ours, scene.clear) > 36
    assert ssim(ours, scene.clear) > max(ssim(plain, scene.clear), 0.97)
    assert edge_error(ours) < 0.6 * edge_error(plain)


def test_fit_by_quality_beats_he_and_suns_plain_average() -> None:
    scene = _scene(4)
    guide, answer = _small(scene.hazy), _small(scene.clear)

    def box(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (3, 3), borderType=cv2.BORDER_REFLECT)

    gain = (box(guide * answer) - box(guide) * box(answer)) / (box(guide**2) - box(guide) ** 2 + 1e-6)
    plain = LocalAffine(box(gain), box(box(answer) - gain * box(guide)))
    ours = apply(scene.hazy, fit(guide, answer))
    assert psnr(ours, scene.clear) > psnr(apply(scene.hazy, plain), scene.clear) + 0.5


def test_noise_is_not_blown_up() -> None:
    scene = _scene(5)
    rng = np.random.default_rng(5)
    noisy = np.clip(np.rint(scene.hazy + rng.normal(0, 5, scene.hazy.shape)), 0, 255).astype(np.uint8)
    blind = psnr(_transfer(noisy, scene.clear), scene.clear)
    aware = psnr(_transfer(noisy, scene.clear, noise=noise_variance(noisy)), scene.clear)
    assert aware > blind + 0.5
    assert aware > psnr(_inverted(noisy, scene), scene.clear)


def test_knowing_of_noise_costs_a_clean_picture_nothing() -> None:
    scene = _scene(5)
    blind = psnr(_transfer(scene.hazy, scene.clear), scene.clear)
    aware = psnr(_transfer(scene.hazy, scene.clear, noise=noise_variance(scene.hazy)), scene.clear)
    assert aware > blind - 0.1


def test_jpeg_blocks_grow_no_more_than_the_haze_model_makes_them() -> None:
    scene = _scene(6)
    ok, data = cv2.imencode(".jpg", scene.hazy, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert ok
    blocky = cv2.imdecode(data, cv2.IMREAD_COLOR)
    ours = _transfer(blocky, scene.clear, noise=noise_variance(blocky))
    assert psnr(ours, scene.clear) > psnr(_inverted(blocky, scene), scene.clear)


@pytest.mark.parametrize("radius", [1, 2])
def test_fit_equals_least_squares_window_by_window(radius: int) -> None:
    r, (height, width) = radius, (4 * radius + 3, 4 * radius + 2)
    guide, answer = (_random((height, width, 3), np.float32, seed) for seed in (1, 2))
    eps, floor = 1e-2, 1e-5
    lines = np.zeros((height, width, 3))
    gain, offset, weight = lines.copy(), lines.copy(), lines.copy()
    for i in range(r, height - r):
        for j in range(r, width - r):
            for c in range(3):
                x = guide[i - r : i + r + 1, j - r : j + r + 1, c].ravel().astype(float)
                y = answer[i - r : i + r + 1, j - r : j + r + 1, c].ravel().astype(float)
                a = ((x - x.mean()) * (y - y.mean())).mean() / (x.var() + eps)
                gain[i, j, c], offset[i, j, c] = a, y.mean() - a * x.mean()
                weight[i, j, c] = 1 / (np.mean((a * x + offset[i, j, c] - y) ** 2) + floor)
    here = np.s_[r : 3 * r + 1, r : 3 * r + 1]  # the windows around (2 r, 2 r)
    w = weight[here] / weight[here].sum((0, 1))
    affine = fit(guide, answer, radius=radius, eps=eps)
    middle = (2 * r, 2 * r)
    np.testing.assert_allclose(affine.gain[middle], (w * gain[here]).sum((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(affine.offset[middle], (w * offset[here]).sum((0, 1)), rtol=1e-4)


def test_windows_at_the_border_repeat_the_outermost_pixels() -> None:
    guide, answer = (_random((5, 6, 3), np.float32, seed) for seed in (1, 2))
    eps, floor = 1e-2, 1e-5

    def windows(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x.astype(float), ((1, 1), (1, 1), (0, 0)), "edge")
        return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1)).reshape(5, 6, 3, 9)

    x, y = windows(guide), windows(answer)
    mean_x, mean_y = x.mean(-1, keepdims=True), y.mean(-1, keepdims=True)
    a = ((x - mean_x) * (y - mean_y)).mean(-1, keepdims=True) / (x.var(-1, keepdims=True) + eps)
    b = mean_y - a * mean_x
    weight = 1 / (np.mean((a * x + b - y) ** 2, axis=-1) + floor)
    affine = fit(guide, answer, radius=1, eps=eps)
    for found, lines in ((affine.gain, a), (affine.offset, b)):
        wanted = windows(weight * lines[..., 0]).sum(-1) / windows(weight).sum(-1)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_wider_windows_average_a_networks_errors_out() -> None:
    """Errors as networks make them: patches a few working pixels wide that are too bright or too dark."""
    scene = _scene(7)
    guide, truth = _small(scene.hazy), _small(scene.clear)
    errors = cv2.GaussianBlur(np.random.default_rng(7).normal(0, 1, truth.shape), (0, 0), 3)
    answer = (truth + 0.06 * errors / errors.std()).astype(np.float32)
    narrow, wide = (psnr(apply(scene.hazy, fit(guide, answer, radius=r)), scene.clear) for r in (1, 6))
    assert wide > narrow + 0.5


def test_global_affine_map_is_recovered() -> None:
    guide = _random((20, 30, 3), np.float32)
    affine = fit(guide, guide * np.float32(1.7) - np.float32(0.3))
    np.testing.assert_allclose(affine.gain, 1.7, atol=5e-3)
    np.testing.assert_allclose(affine.offset, -0.3, atol=5e-3)


def test_flat_guide_gives_the_answers_level() -> None:
    guide = np.full((8, 9, 3), 0.9, np.float32)
    affine = fit(guide, np.full_like(guide, 0.4))
    assert (apply(np.full((80, 90, 3), 230, np.uint8), affine) == 102).all()


def test_guide_and_answer_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        fit(np.zeros((4, 4, 3), np.float32), np.zeros((4, 5, 3), np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("size", "low"), [((97, 123), (13, 17)), ((40, 64), (40, 31)), ((33, 5), (1, 1))])
def test_apply_equals_enlarging_the_maps_whole(
    dtype: type, size: tuple[int, int], low: tuple[int, int]
) -> None:
    pixels, affine = _random((*size, 3), dtype), _random_affine(*low)
    peak = white(np.dtype(dtype))
    gain, offset = (
        cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR).astype(float)
        for m in (affine.gain, affine.offset)
    )
    expected = np.clip(pixels.astype(float) / peak * gain + offset, 0, 1) * peak
    result = apply(pixels, affine)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=0.51 if peak == 255 else peak * 4e-6 + (peak > 1))


def test_maps_line_up_with_the_pixels_that_made_them() -> None:
    """A gain that grows linearly across the working copy grows linearly across the picture, unshifted."""
    low, high = 10, 80
    centres = (np.arange(low, dtype=np.float32) + 0.5) / low
    gain = np.broadcast_to(centres[None, :, None], (low, low, 3)).copy()
    for axis in (0, 1):
        affine = LocalAffine(np.swapaxes(gain, 0, 1 - axis).copy(), np.zeros_like(gain))
        line = apply(np.ones((high, high, 3), np.float32), affine)
        line = line[:, 40, 0] if axis == 0 else line[40, :, 0]
        inner = slice(high // low, -high // low)
        np.testing.assert_allclose(line[inner], ((np.arange(high) + 0.5) / high)[inner], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_result_does_not_depend_on_strips(dtype: type) -> None:
    pixels, affine = _random((211, 157, 3), dtype), _random_affine(19, 14)
    whole = apply(pixels, affine, strip_rows=1000)
    for rows in (1, 7, 64):
        np.testing.assert_array_equal(apply(pixels, affine, strip_rows=rows), whole)


@pytest.mark.parametrize("height", [1000, 4000])
def test_memory_beyond_input_and_output_does_not_grow(height: int) -> None:
    pixels = _random((250, 1500, 3), np.uint8)
    pixels = np.tile(pixels, (height // 250, 1, 1))
    tracemalloc.start()
    try:
        affine = fit(shrink(pixels, 80, 30), shrink(pixels, 80, 30), noise=noise_variance(pixels))
        result = apply(pixels, affine)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 8e6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strength_mixes_the_input_back_in(dtype: type) -> None:
    pixels, affine = (
        _random((60, 70, 3), dtype),
        LocalAffine(*(np.full((6, 7, 3), v, np.float32) for v in (0.5, 0.1))),
    )
    np.testing.assert_array_equal(apply(pixels, affine, strength=0), pixels)
    mixed = (pixels.astype(float) + apply(pixels, affine)) / 2
    np.testing.assert_allclose(
        apply(pixels, affine, strength=0.5), mixed, atol=1e-6 if dtype == np.float32 else 1
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_results_are_clamped_never_wrapped(dtype: type) -> None:
    pixels = _random((30, 30, 3), dtype)
    for offset, bound in ((5.0, white(np.dtype(dtype))), (-5.0, 0)):
        affine = LocalAffine(np.ones((3, 3, 3), np.float32), np.full((3, 3, 3), offset, np.float32))
        assert (apply(pixels, affine) == bound).all()


def test_strided_pixels_are_read_as_they_are() -> None:
    pixels, affine = _random((64, 64, 6), np.uint8), _random_affine(8, 8)
    view = pixels[::-1, :, ::2]
    np.testing.assert_array_equal(apply(view, affine), apply(view.copy(), affine))
    np.testing.assert_array_equal(shrink(view, 7, 9), shrink(view.copy(), 7, 9))


@pytest.mark.parametrize("deviation", [1, 3, 10])
def test_noise_is_measured_through_texture(deviation: float) -> None:
    rng = np.random.default_rng(0)
    clean = 0.5 + _texture(rng, 200, 300)
    clean[:, 150:] = 0.4
    noisy = _levels(clean + rng.normal(0, deviation / 255, clean.shape))
    assert 255 * noise_variance(noisy) ** 0.5 == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 2), (50, 3)])
def test_tiny_pictures_have_finite_noise(size: tuple[int, int]) -> None:
    assert 0 <= noise_variance(_random((*size, 3), np.uint8)) < 1
