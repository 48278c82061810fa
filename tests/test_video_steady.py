"""Steadied haze: on a hazy clip whose truth is known, less flicker at no loss of PSNR."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from dehaze.flicker import flicker
from dehaze.metrics import psnr
from dehaze.upsample import LocalAffine, apply
from dehaze.video import steady
from dehaze.video.steady import Steadier
from dehaze.working_copy import shrink

SIZE = WIDTH, HEIGHT = 160, 120
WORKING = (60, 80)
AIRLIGHT = 0.82


@dataclass(frozen=True)
class Clip:
    """Frames of a known scene, and what a trembling network would say of them."""

    clear: list[np.ndarray]
    hazy: list[np.ndarray]
    says: list[LocalAffine]


def scene(seed: int) -> np.ndarray:
    """A wide picture with edges and texture, (H, 3 W, 3) in [0, 1]."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, 3 * WIDTH, 3), np.float32)
    for sigma, weight in ((40, 3.0), (8, 1.0), (2, 0.35)):
        noise = cv2.GaussianBlur(rng.standard_normal(picture.shape).astype(np.float32), (0, 0), sigma)
        picture += weight * noise / noise.std()
    for _ in range(40):
        x, y = rng.integers(0, 3 * WIDTH), rng.integers(0, HEIGHT)
        colour = rng.uniform(-3, 3, 3).tolist()
        cv2.rectangle(picture, (int(x), int(y)), (int(x) + 25, int(y) + 18), colour, -1)
    return np.clip(0.45 + 0.1 * picture, 0.02, 0.98)


def haze(seed: int) -> np.ndarray:
    """Its thickness, (H, 3 W): grows to the top, with a step wherever something stands nearer."""
    rng = np.random.default_rng(seed)
    thickness = np.repeat(np.linspace(1.8, 0.6, HEIGHT, dtype=np.float32)[:, None], 3 * WIDTH, axis=1)
    for x in rng.integers(0, 3 * WIDTH, 12):
        thickness[40:, x : x + 20] *= 0.5
    return thickness


def film(
    *, frames: int = 14, tremble: float = 0.25, speed: float = 2.0, seed: int = 0, cut: int | None = None
) -> Clip:
    """A pan through haze; the network is wrong about its thickness by another factor in each frame."""
    rng = np.random.default_rng(seed + 1)
    clear, hazy, says = [], [], []
    picture, thickness = scene(seed), haze(seed)
    for index in range(frames):
        if index == cut:
            picture, thickness = scene(seed + 100), haze(seed + 100)[::-1]
        shift = np.float32([[1, 0, -speed * index], [0, 1, 0]])
        view, depth = (cv2.warpAffine(wide, shift, SIZE) for wide in (picture, thickness))
        transmission = np.exp(-depth)[..., None]
        clear.append(to_bytes(view))
        hazy.append(to_bytes(view * transmission + AIRLIGHT * (1 - transmission)))
        believed = np.exp(-depth * (1 + tremble * rng.standard_normal()))
        gain = cv2.resize(1 / believed, WORKING[::-1], interpolation=cv2.INTER_AREA)
        gain = np.repeat(gain[..., None], 3, axis=2).astype(np.float32)
        says.append(LocalAffine(gain, AIRLIGHT * (1 - gain)))
    return Clip(clear, hazy, says)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def dehaze(clip: Clip, seconds: float) -> list[np.ndarray]:
    steadier = Steadier(seconds)
    answers = []
    for index, (hazy, affine) in enumerate(zip(clip.hazy, clip.says, strict=True)):
        answers.append(apply(hazy, steadier(affine, shrink(hazy, *WORKING), index / 25)))
    return answers


def quality(clip: Clip, answers: list[np.ndarray]) -> float:
    return float(np.mean([psnr(a, b) for a, b in zip(answers, clip.clear, strict=True)]))


@pytest.mark.parametrize("speed", [0.0, 2.0, 5.0])
def test_a_trembling_network_flickers_less_and_is_nearer_the_truth(speed: float) -> None:
    clip = film(speed=speed)
    alone, steadied = dehaze(clip, 0), dehaze(clip, 0.5)
    assert flicker(clip.hazy, steadied) < 0.5 * flicker(clip.hazy, alone)
    assert quality(clip, steadied) > quality(clip, alone) + 1


def test_a_network_that_is_right_is_not_made_worse() -> None:
    clip = film(tremble=0, speed=4.0)
    assert quality(clip, dehaze(clip, 0.5)) > quality(clip, dehaze(clip, 0)) - 0.1


def test_nothing_crosses_a_cut() -> None:
    cut = 7
    clip = film(cut=cut)
    alone, steadied = dehaze(clip, 0), dehaze(clip, 0.5)
    np.testing.assert_array_equal(steadied[cut], alone[cut])
    assert not np.array_equal(steadied[cut - 1], alone[cut - 1])
    assert not np.array_equal(steadied[cut + 1], alone[cut + 1])


def test_what_changed_is_believed_anew_and_only_there() -> None:
    """A bright thing appears on the right: only there the new frame counts alone."""
    before = np.full((*WORKING, 3), 0.5, np.float32)
    before += 0.1 * np.random.default_rng(0).standard_normal(before.shape).astype(np.float32)
    after = before.copy()
    after[:, 50:] = 0.95
    ones, threes = (LocalAffine(np.full_like(before, v), np.zeros_like(before)) for v in (1, 3))
    steadier = Steadier(10.0)
    steadier(ones, before, 0.0)
    mixed = steadier(threes, after, 0.04)
    assert mixed.gain[20:40, 5:30].mean() == pytest.approx(2, abs=0.05)
    assert mixed.gain[20:40, 60:75].mean() == pytest.approx(3, abs=0.05)


def test_what_comes_into_view_has_no_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pan over an even wall nothing changes at the edge, but what is there now was not seen before."""
    wall = np.full((*WORKING, 3), 0.5, np.float32)
    ones, threes = (LocalAffine(np.full_like(wall, v), np.zeros_like(wall)) for v in (1, 3))
    monkeypatch.setattr(steady, "_flow", lambda before, after: np.full((*WORKING, 2), (10, 0), np.float32))
    steadier = Steadier(1e6)
    steadier(ones, wall, 0.0)
    mixed = steadier(threes, wall, 0.04)
    np.testing.assert_allclose(mixed.gain[:, :-10], 2, rtol=1e-5)
    np.testing.assert_allclose(mixed.gain[:, -10:], 3, rtol=1e-5)


def test_frames_count_by_their_age_and_first_all_alike() -> None:
    still = np.random.default_rng(0).uniform(0, 1, (*WORKING, 3)).astype(np.float32)

    def gain_after(values: list[float], seconds: float, times: list[float]) -> float:
        steadier = Steadier(seconds)
        for value, time in zip(values, times, strict=True):
            affine = LocalAffine(np.full_like(still, value), np.zeros_like(still))
            result = steadier(affine, still, time)
        return float(result.gain.mean())

    assert gain_after([1, 2, 6], 1e6, [0, 1, 2]) == pytest.approx(3, rel=1e-3)
    # exp(-1) of the first, all of the second
    fade = np.exp(-1)
    assert gain_after([1, 2], 2.0, [0, 2]) == pytest.approx((fade * 1 + 2) / (fade + 1), rel=1e-3)
    assert gain_after([1, 2], 2.0, [0, 200]) == pytest.approx(2, rel=1e-3)


def test_zero_seconds_change_nothing() -> None:
    clip = film(frames=3)
    steadier = Steadier(0)
    for index, affine in enumerate(clip.says):
        assert steadier(affine, shrink(clip.hazy[index], *WORKING), index) is affine


def test_pictures_of_any_size_and_a_change_of_size() -> None:
    steadier = Steadier(1.0)
    for time, shape in enumerate([(1, 1, 3), (1, 1, 3), (7, 30, 3), (7, 30, 3), (500, 40, 3), (500, 40, 3)]):
        guide = np.full(shape, 0.5, np.float32)
        affine = LocalAffine(np.full(shape, 2, np.float32), np.zeros(shape, np.float32))
        result = steadier(affine, guide, time / 25)
        assert result.gain.shape == shape
        np.testing.assert_allclose(result.gain, 2, rtol=1e-5)
