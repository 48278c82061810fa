from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dehaze.metrics import luma, psnr, ssim


def independent_ssim(answer: np.ndarray, truth: np.ndarray) -> float:
    return float(
        structural_similarity(
            truth / 255,
            answer / 255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
    )


def picture(kind: str, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(hash((height, width)) % 1000)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "flat":
        return np.full((height, width, 3), 255, np.uint8)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    return np.repeat(ramp, 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", [(11, 11), (11, 64), (37, 53), (120, 90)])
@pytest.mark.parametrize("kinds", [("noise", "ramp"), ("ramp", "flat"), ("noise", "flat"), ("flat", "noise")])
def test_both_metrics_equal_scikit_image(size: tuple[int, int], kinds: tuple[str, str]) -> None:
    answer, truth = (picture(kind, *size) for kind in kinds)
    assert psnr(answer, truth) == pytest.approx(
        peak_signal_noise_ratio(truth, answer, data_range=255), abs=1e-4
    )
    assert ssim(answer, truth) == pytest.approx(independent_ssim(answer, truth), abs=1e-4)


def test_a_slightly_noisy_picture_equals_scikit_image() -> None:
    truth = picture("ramp", 64, 80)
    noise = np.random.default_rng(1).normal(0, 5, truth.shape)
    answer = (truth + noise).clip(0, 255).round().astype(np.uint8)
    assert psnr(answer, truth) == pytest.approx(peak_signal_noise_ratio(truth, answer), abs=1e-4)
    assert ssim(answer, truth) == pytest.approx(independent_ssim(answer, truth), abs=1e-4)


def test_one_channel_equals_scikit_image() -> None:
    answer, truth = picture("noise", 40, 50)[..., :1], picture("ramp", 40, 50)[..., :1]
    assert ssim(answer, truth) == pytest.approx(independent_ssim(answer, truth), abs=1e-4)
    assert ssim(answer[..., 0], truth[..., 0]) == pytest.approx(ssim(answer, truth), abs=1e-12)


def test_equal_pictures() -> None:
    truth = picture("noise", 20, 20)
    assert psnr(truth, truth) == float("inf")
    assert ssim(truth, truth) == pytest.approx(1)


def test_closed_form_of_a_constant_error() -> None:
    truth = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(truth + 1, truth) == pytest.approx(20 * np.log10(255), abs=1e-9)
    assert psnr(np.zeros_like(truth), np.full_like(truth, 255)) == pytest.approx(0)


def test_eight_bit_differences_do_not_wrap() -> None:
    dark, bright = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 200, np.uint8)
    assert psnr(dark, bright) == psnr(bright, dark) == pytest.approx(20 * np.log10(255 / 200))


def test_shapes_that_differ_are_refused() -> None:
    a, b = picture("noise", 20, 20), picture("noise", 20, 21)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match=r"\(20, 20, 3\) and \(20, 21, 3\)"):
            metric(a, b)


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    small = picture("noise", 10, 40)
    with pytest.raises(ValueError, match="11 x 11 pixels, got 40 x 10"):
        ssim(small, small)


def test_luma_is_studio_range() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luma(pixels)[0, :, 0].tolist() == [16, 235, 81, 145, 41]
