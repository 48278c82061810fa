"""The flicker measure: zero for what is steady, levels for what is not, blind to the input's own change."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dehaze.flicker import flicker


def texture(seed: int = 0, height: int = 120, width: int = 320) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return 128 + 40 * smooth / smooth.std()


def views(count: int, speed: float) -> list[np.ndarray]:
    """A pan over a texture."""
    picture = texture()
    return [
        cv2.warpAffine(picture, np.float32([[1, 0, -20 - speed * i], [0, 1, 0]]), (160, 120))
        for i in range(count)
    ]


def as_bytes(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in frames]


@pytest.mark.parametrize("speed", [0.0, 1.0, 3.0])
def test_a_steady_removal_has_no_flicker_however_the_camera_moves(speed: float) -> None:
    frames = views(5, speed)
    hazy = [0.5 * frame + 90 for frame in frames]
    assert flicker(as_bytes(hazy), as_bytes(frames)) < 0.5


@pytest.mark.parametrize("speed", [0.0, 2.0])
def test_it_counts_levels(speed: float) -> None:
    frames = views(5, speed)
    trembling = [frame + (6 if index % 2 else 0) for index, frame in enumerate(frames)]
    assert flicker(as_bytes(frames), as_bytes(trembling)) == pytest.approx(6, abs=0.7)


def test_the_inputs_own_flicker_is_not_the_dehazers() -> None:
    frames = [texture()[:, :160] + (2 if index % 2 else 0) for index in range(4)]
    assert flicker(as_bytes(frames), as_bytes(frames)) == 0
    assert flicker(as_bytes(frames), as_bytes([frame - 30 for frame in frames])) < 0.3


def test_a_cut_is_no_flicker() -> None:
    first, second = texture(1)[:, :160], texture(2)[:, :160]
    hazy = [first, first, second, second]
    removed = [10, 10, 40, 40]
    clear = [frame - haze for frame, haze in zip(hazy, removed, strict=True)]
    assert flicker(as_bytes(hazy), as_bytes(clear)) < 0.3


def test_more_trembling_is_more_flicker() -> None:
    frames = views(6, 1.0)
    rng = np.random.default_rng(0)
    gains = rng.standard_normal(6)
    measures = [
        flicker(
            as_bytes(frames),
            as_bytes([(f - 150) * (1 + a * g) + 150 for f, g in zip(frames, gains, strict=True)]),
        )
        for a in (0.02, 0.05, 0.1)
    ]
    assert measures == sorted(measures)
    assert measures[2] > 3 * measures[0]


def test_what_cannot_be_measured_is_refused() -> None:
    frame = as_bytes([texture()])[0]
    with pytest.raises(ValueError, match="at least two frames, got 1"):
        flicker([frame], [frame])
    with pytest.raises(ValueError, match="frame 1 is"):
        flicker([frame, frame], [frame, frame[:50]])
    with pytest.raises(ValueError, match="zip"):
        flicker([frame, frame], [frame])
    other = as_bytes([texture(9)])[0]
    with pytest.raises(ValueError, match="no two successive frames show the same scene"):
        flicker([frame, other], [frame, other])
